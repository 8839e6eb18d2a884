"""Effects stay until what they are for is seen."""

import random

import pytest

from sliceform.controller.model.effects import EffectRequest, Notify, Release, Reserve, Stop
from sliceform.controller.model.shapes import CpuSlice
from sliceform.controller.reconcile.act import RESUBMIT_MAX_S, RESUBMIT_S, Outbox
from sliceform.states.effects import Effect

RESERVE = Reserve("slice-1", CpuSlice(1))


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(backoff_initial_s=0.5, backoff_max_s=8.0, rng=random.Random(0))


class World:
    """Takes requests, and says which of them it has been seen to carry out."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.submitted: list[EffectRequest] = []
        self.done: set[Effect] = set()

    def flush(self, now: float) -> float:
        return self.outbox.flush(now, self.submitted.append, lambda request: request.effect in self.done)


def test_is_submitted_once_and_again_only_when_nothing_is_seen_for_long(outbox: Outbox) -> None:
    world = World(outbox)
    outbox.put(RESERVE, 0.0)
    due = world.flush(0.0)
    assert world.submitted == [RESERVE]
    assert RESUBMIT_S <= due <= 1.2 * RESUBMIT_S
    assert world.flush(due - 0.1) == due
    assert world.submitted == [RESERVE]
    world.flush(due)
    assert world.submitted == [RESERVE, RESERVE]


@pytest.mark.parametrize("request_", [Stop("slice-1", "run-1/1", 40.0), Release("slice-1", 40.0)])
def test_time_that_was_given_is_not_given_again(outbox: Outbox, request_: Stop | Release) -> None:
    world = World(outbox)
    outbox.put(request_, 10.0)
    due = world.flush(10.0)
    due = world.flush(due)
    world.flush(due)
    first, again, last = world.submitted
    assert first == request_
    assert isinstance(again, Stop | Release)
    assert again.grace_s == pytest.approx(40.0 - RESUBMIT_S, abs=0.2 * RESUBMIT_S)
    assert isinstance(last, Stop | Release)
    assert last.grace_s == 0.0


def test_waits_longer_every_time_up_to_a_bound(outbox: Outbox) -> None:
    world, now, waits = World(outbox), 0.0, []
    outbox.put(RESERVE, now)
    for _ in range(8):
        due = world.flush(now)
        waits.append(due - now)
        now = due
    assert waits[1] > waits[0]
    assert RESUBMIT_MAX_S <= waits[-1] <= 1.2 * RESUBMIT_MAX_S


def test_what_has_been_observed_is_forgotten_and_never_submitted(outbox: Outbox) -> None:
    world = World(outbox)
    outbox.put(RESERVE, 0.0)
    world.done = {Effect.RESERVE}
    assert world.flush(0.0) == float("inf")
    assert (world.submitted, len(outbox)) == ([], 0)


def test_a_failure_backs_off_with_jitter_up_to_a_bound(outbox: Outbox) -> None:
    outbox.put(RESERVE, 0.0)
    waits = []
    for _ in range(8):
        item = outbox.failed("slice-1", Effect.RESERVE, 100.0, "no")
        assert item is not None
        waits.append(item.due - 100.0)
    for number, wait in enumerate(waits):
        full = min(8.0, 0.5 * 2**number)
        assert full / 2 <= wait <= full


def test_the_failure_of_what_is_not_wanted_any_more_is_dropped(outbox: Outbox) -> None:
    assert outbox.failed("slice-1", Effect.RESERVE, 0.0, "no") is None


def test_one_effect_per_life_and_kind_the_last_one_counts(outbox: Outbox) -> None:
    world = World(outbox)
    outbox.put(Notify("slice-1", "run-1/1", None), 0.0)
    outbox.put(Notify("slice-1", "run-1/1", 7.0), 0.0)
    world.flush(0.0)
    assert world.submitted == [Notify("slice-1", "run-1/1", 7.0)]


def test_a_release_ends_all_else_of_its_life_and_of_no_other(outbox: Outbox) -> None:
    outbox.put(RESERVE, 0.0)
    outbox.put(Stop("slice-1", "run-1/1", 0.0), 0.0)
    outbox.put(Stop("slice-2", "run-1/1", 0.0), 0.0)
    outbox.put(Release("slice-1", 0.0), 0.0)
    assert len(outbox) == 2
    assert outbox.get("slice-1", Effect.RELEASE) is not None
    assert outbox.get("slice-2", Effect.STOP) is not None
    outbox.drop("slice-1")
    assert len(outbox) == 1
