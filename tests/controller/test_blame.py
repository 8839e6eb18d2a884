"""Whom a run that failed blames: what came first and was not asked for; error, history and charge say the same."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from sliceform.controller import RunFailed, Stopped, host_context
from sliceform.controller.model.effects import AttemptSpec
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.reconcile.decide.run import Attempt, Departure, Ended, Left
from sliceform.controller.reconcile.decide.verdict import classify

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py

CRASHED = Outcome(OutcomeKind.CRASHED, "killed by signal 9")
RAISED = Outcome(OutcomeKind.RAISED, "ValueError: x", types=("builtins.ValueError",))
TOLD = Outcome(OutcomeKind.RAISED, "Stopped: saved")
BROKEN = Outcome(
    OutcomeKind.RAISED, "ConnectionResetError", types=("builtins.ConnectionResetError", "builtins.ConnectionError")
)
STOPPED = Outcome(OutcomeKind.STOPPED, "stopped by the controller")
LOST = Outcome(OutcomeKind.LOST, "its node died")


def saves() -> None:
    if host_context().should_stop():
        raise Stopped("saved")


def attempt() -> Attempt:
    return Attempt(AttemptSpec("run-1/1", "run-1", 1, ("slice-1", "slice-2"), 2, None), 0.0)


def left(departure: Departure, host: str) -> Left:
    return Left(departure, "why", host)


@pytest.mark.parametrize("first", [CRASHED, RAISED, Outcome(OutcomeKind.REFUSED, "no such module")])
def test_the_first_end_leads_whatever_its_kind(first: Outcome) -> None:
    one = attempt()
    one.record("slice-2", 1, first)
    one.record("slice-1", 0, RAISED)
    one.record("slice-1", 1, BROKEN)
    found = classify(one, cancelled=False)
    assert (found.ended, found.host, found.outcome) == (Ended.FAILED, "slice-2/1", first)
    assert found.detail == f"rank 3 (slice-2/1): {first.detail}"


def test_an_end_that_was_asked_for_never_leads() -> None:
    one = attempt()
    one.record("slice-1", 0, STOPPED)
    one.record("slice-2", 1, CRASHED)
    one.asked = True
    one.record("slice-1", 1, TOLD)
    assert classify(one, cancelled=False).host == "slice-2/1"


@pytest.mark.parametrize(("heard_first", "cause"), [(RAISED, CRASHED), (BROKEN, CRASHED), (BROKEN, RAISED)])
def test_what_ended_before_its_host_was_asked_leads_though_its_consequence_was_heard_first(
    heard_first: Outcome, cause: Outcome
) -> None:
    """Collectives raise errors of any class when a peer has died: jax a `ValueError`."""
    one = attempt()
    one.record("slice-1", 0, heard_first)
    one.asked = True
    one.record("slice-2", 1, dataclasses.replace(cause, unasked=True))
    assert classify(one, cancelled=False).host == "slice-2/1"


def test_a_broken_connection_never_leads_where_anything_else_is_known() -> None:
    one = attempt()
    one.record("slice-1", 0, BROKEN)
    assert classify(one, cancelled=False).host == "slice-1/0"
    one.record("slice-2", 1, CRASHED)
    assert classify(one, cancelled=False).host == "slice-2/1"


def test_a_process_that_was_lost_never_leads_where_anything_else_is_known() -> None:
    one = attempt()
    one.record("slice-1", 0, LOST)
    found = classify(one, cancelled=False)
    assert (found.ended, found.host) == (Ended.PREEMPTED, "slice-1/0")
    one.leave("slice-2", left(Departure.FAILED, "slice-2/1"))
    found = classify(one, cancelled=False)
    assert (found.ended, found.host, found.outcome) == (Ended.FAILED, "slice-2/1", None)


def test_a_loss_leads_though_the_ends_that_it_brought_about_were_seen_first() -> None:
    one = attempt()
    one.record("slice-1", 0, RAISED)
    one.leave("slice-2", left(Departure.PREEMPTED, "slice-2/1"))
    assert classify(one, cancelled=False).ended is Ended.PREEMPTED


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Departure.FAILED, Departure.PREEMPTED, Ended.FAILED),
        (Departure.PREEMPTED, Departure.FAILED, Ended.PREEMPTED),
        (Departure.FAILED, Departure.TAKEN, Ended.FAILED),
        (Departure.TAKEN, Departure.PREEMPTED, Ended.PREEMPTED),
        (Departure.TAKEN, Departure.FAILED, Ended.SUPERSEDED),
    ],
)
def test_the_first_slice_that_left_without_being_asked_leads(
    first: Departure, second: Departure, expected: Ended
) -> None:
    one = attempt()
    one.leave("slice-1", left(first, "slice-1/0"))
    one.leave("slice-2", left(second, "slice-2/1"))
    assert classify(one, cancelled=False).ended is expected


def test_what_happens_to_a_slice_that_has_left_counts_no_more() -> None:
    one = attempt()
    one.leave("slice-1", left(Departure.TAKEN, "slice-1"))
    one.leave("slice-1", left(Departure.PREEMPTED, "slice-1/0"))
    found = classify(one, cancelled=False)
    assert (found.ended, found.detail) == (Ended.SUPERSEDED, "slice-1: why")


def test_a_failure_after_it_was_asked_to_grow_is_none() -> None:
    one = attempt()
    one.superseded = "to grow from 2 to 4 slices"
    one.leave("slice-2", left(Departure.FAILED, "slice-2/1"))
    assert classify(one, cancelled=False).ended is Ended.SUPERSEDED


def test_what_ended_for_no_known_reason_names_a_host_all_the_same() -> None:
    one = attempt()
    one.record("slice-1", 1, STOPPED)
    found = classify(one, cancelled=False)
    assert (found.ended, found.host) == (Ended.FAILED, "slice-1/1")


@pytest.mark.parametrize("grace_s", [0.0, 5.0], ids=["at once", "with grace"])
def test_an_agent_that_died_is_named_though_healthy_hosts_did_as_told(sim_fleet: Make, grace_s: float) -> None:
    world = sim_fleet(2, 3, work_s=30.0, stop_s=30.0, settings={"loss_grace_s": grace_s}).ready()
    run = world.fleet.submit(saves)
    world.until(lambda: len(world.rows("running")) == 2)
    world.go(26.0)
    world.sim.kill_agent(world.place("slice-2"), 1)
    world.over(run)
    with pytest.raises(RunFailed, match=r"slice-2: host 1: the agent's process ended \(agent_died\)") as caught:
        run.result()
    assert (caught.value.host, caught.value.exception) == ("slice-2/1", None)
    assert (run.status().failures, run.status().preemptions) == (1, 0)
    says_the_same(world, run, "slice-2: host 1: the agent's process ended (agent_died)")


def says_the_same(world: Any, run: Any, detail: str) -> None:
    """The error, the attempt, the history and `why` tell of one cause."""
    assert run.attempts[-1].detail == detail
    (told,) = world.fleet.history.runs(run.id)
    assert told.detail == told.attempts[-1].detail == detail
    assert detail in str(world.fleet.why(run.id))


def test_the_rule_for_an_exception_is_that_of_the_one_that_leads(sim_fleet: Make) -> None:
    """`retry_on` of what a host raised because it was told to stop does not excuse the failure of another."""
    world = sim_fleet(1, 2, work_s=10.0, stop_s=10.0, settings={"loss_grace_s": 60.0}).ready()
    run = world.fleet.options(retry_on=[Stopped]).submit(saves)
    world.until(lambda: len(world.rows("running")) == 1)
    world.go(5.0)
    world.sim.kill_agent(world.place("slice-1"), 1)
    world.over(run)
    assert run.status().state == "failed"
