"""How an attempt that is under way goes on, from what is known of its slices."""

from typing import Any, NamedTuple

import pytest

from sliceform.controller.model.effects import AttemptSpec
from sliceform.controller.model.events import PROCESS_LOSSES, Node, Outcome, OutcomeKind
from sliceform.controller.model.run_options import RunOptions
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.commit import commit
from sliceform.controller.reconcile.decide.life import Life, Loss
from sliceform.controller.reconcile.decide.run import (
    Attempt,
    Clear,
    Departure,
    Ended,
    Left,
    RunRecord,
    Verdict,
    may_retry,
)
from sliceform.controller.reconcile.decide.stopping import due as stop_due
from sliceform.controller.reconcile.decide.stopping import stop
from sliceform.controller.reconcile.decide.sync import FOREVER
from sliceform.controller.reconcile.decide.sync_attempt import due, sync_attempts
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states import History
from sliceform.states.attempts import AttemptState
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunState
from sliceform.states.slices import SliceState

KEY = "run-1/1"
NOW, EPOCH = 100.0, 5_000.0
RETURNED = Outcome(OutcomeKind.RETURNED)


class Seen(NamedTuple):
    """What one look at the attempt led to."""

    departures: dict[str, Left]
    stop_at: float | None
    #: When it is looked at again though nothing happens.
    due: float
    verdict: Verdict | None


class World:
    """One attempt on two slices of two hosts that all work."""

    def __init__(self) -> None:
        names = ("slice-1", "slice-2")
        self.ledger = Ledger.begin(TpuSlice("v4-16"), Desired((2,)), Settings(), History(), seed=0)
        fleet = self.ledger.fleet
        self.run = RunRecord("run-1", None, RunOptions(), 0.0, lambda _: None, RunState.RUNNING)
        self.attempt = Attempt(AttemptSpec(KEY, "run-1", 1, names, 2, None), 0.0, AttemptState.RUNNING)
        self.attempt.nodes = tuple((f"node-{rank}", "") for rank in range(4))
        self.run.begin(self.attempt)
        self.ledger.attempts[KEY] = self.attempt
        fleet.runs, fleet.blind = [self.run], ""
        self.nodes = fleet.nodes = {name: Node(name, alive=True) for name, _ in self.attempt.nodes}
        self.lives = fleet.lives
        for name in names:
            life = Life.begin(name, 2, generation=0, replaces=None)
            life.record.state, life.record.attempt = SliceState.RUNNING, KEY
            life.heard = [NOW, NOW]
            self.lives[name] = life

    def look(self, now: float = NOW, **settings: Any) -> Seen:
        """Commit all facts of the attempt, and what is to be done about its end."""
        fleet = self.ledger.fleet
        fleet.now, fleet.epoch = now, EPOCH
        fleet.settings = Settings(**settings)
        while steps := sync_attempts(self.run, fleet):
            commit(self.ledger, steps)
        while self.run.active is not None and (steps := list(stop(self.run, self.attempt, fleet))):
            commit(self.ledger, steps)
        soon = stop_due(self.attempt) if self.attempt.goes_on else FOREVER
        return Seen(
            self.attempt.departures, self.attempt.stop_at, min(soon, due(self.run, fleet)), self.attempt.verdict
        )

    def leave(self, name: str, state: SliceState, reason: Reason, *, lost: bool = False) -> Life:
        life = self.lives[name]
        life.record.state, life.record.reason, life.record.detail = state, reason, reason.value
        life.record.lost, life.record.since = lost, NOW
        departure = Departure.TAKEN if reason is Reason.OPERATOR else Departure.PREEMPTED
        departure = Departure.FAILED if reason in PROCESS_LOSSES else departure
        self.attempt.leave(name, Left(departure, reason.value, f"{name}/0"))
        self.attempt.state = AttemptState.STOPPING
        return life

    def release(self, name: str) -> None:
        """Let a slice be gone, and each of its hosts be seen clear of the attempt."""
        self.clear(name, 0, 1)
        del self.lives[name]

    def clear(self, name: str, *hosts: int) -> None:
        for rank in hosts:
            self.attempt.clear[self.attempt.rank_of(name, rank)] = Clear.SEEN_GONE

    def end(self, name: str, outcome: Outcome = RETURNED) -> None:
        life = self.lives[name]
        for rank, host in enumerate(life.view.hosts):
            host.gone = KEY
            self.clear(name, rank)
            life.view.outcomes[KEY, rank] = outcome
            self.attempt.record(name, rank, outcome)


@pytest.fixture
def world() -> World:
    return World()


def test_all_is_well(world: World) -> None:
    assert world.look() == Seen({}, None, FOREVER, None)
    assert world.attempt.state is AttemptState.RUNNING


def test_succeeds_as_soon_as_every_host_returned(world: World) -> None:
    world.end("slice-1")
    assert world.look().verdict is None
    world.leave("slice-2", SliceState.PREEMPTED, Reason.PREEMPTION_NOTICE)
    for rank in range(2):
        world.attempt.record("slice-2", rank, RETURNED)
    ended = world.look().verdict
    assert ended is not None
    assert ended[0] is Ended.SUCCEEDED


def test_a_host_that_raised_stops_the_others_and_fails_it(world: World) -> None:
    world.end("slice-1", Outcome(OutcomeKind.RAISED, "ValueError: x"))
    seen = world.look(loss_grace_s=0.0)
    assert (seen.stop_at, seen.verdict) == (NOW, None)
    world.end("slice-2", Outcome(OutcomeKind.STOPPED))
    ended = world.look().verdict
    assert ended == Verdict(
        Ended.FAILED,
        "rank 0 (slice-1/0): ValueError: x",
        "slice-1/0",
        Outcome(OutcomeKind.RAISED, "ValueError: x"),
    )


def test_a_lost_slice_stops_the_others_at_once(world: World) -> None:
    world.leave("slice-1", SliceState.PREEMPTED, Reason.NODE_DIED, lost=True)
    seen = world.look()
    assert seen.departures == {"slice-1": Left(Departure.PREEMPTED, "node_died", "slice-1/0")}
    assert seen.stop_at == NOW


@pytest.mark.parametrize(("deadline", "expected"), [(EPOCH + 20.0, 20.0), (EPOCH - 1.0, 0.0), (None, 30.0)])
def test_a_notice_leaves_the_work_its_time(world: World, deadline: float | None, expected: float) -> None:
    life = world.leave("slice-1", SliceState.PREEMPTED, Reason.PREEMPTION_NOTICE)
    life.view.hosts[0].notices = {"gce": deadline}
    assert world.look().stop_at == NOW + expected


def test_an_operators_drain_leaves_the_time_that_was_given_and_charges_nothing(world: World) -> None:
    life = world.leave("slice-1", SliceState.DRAINING, Reason.OPERATOR)
    life.drain_by = NOW + 12.0
    seen = world.look()
    assert (seen.departures["slice-1"].departure, seen.stop_at) == (Departure.TAKEN, NOW + 12.0)
    world.release("slice-1")
    world.end("slice-2", Outcome(OutcomeKind.STOPPED))
    ended = world.look().verdict
    assert ended is not None
    assert ended[0] is Ended.SUPERSEDED


def test_a_host_that_saved_and_raised_under_a_notice_leaves_the_others_their_time(world: World) -> None:
    life = world.leave("slice-1", SliceState.PREEMPTED, Reason.PREEMPTION_NOTICE)
    life.view.hosts[0].notices = {"gce": EPOCH + 20.0}
    world.attempt.record("slice-1", 0, Outcome(OutcomeKind.RAISED, "saved"))
    world.attempt.stop_at = world.look().stop_at
    assert world.attempt.stop_at == NOW + 20.0
    world.release("slice-1")
    assert world.look(NOW + 5.0).stop_at == NOW + 20.0


def test_a_loss_or_a_cancel_after_a_notice_cuts_the_time_short(world: World) -> None:
    life = world.leave("slice-1", SliceState.PREEMPTED, Reason.PREEMPTION_NOTICE)
    life.view.hosts[0].notices = {"gce": EPOCH + 20.0}
    world.attempt.stop_at = NOW + 20.0
    life.view.hosts[1].lost = Loss(Reason.NODE_DIED, "gone")
    assert world.look(NOW + 2.0, loss_grace_s=1.0).stop_at == NOW + 3.0
    world.run.cancel_by = 3.0
    assert world.look(NOW + 2.5).stop_at == NOW + 2.5


def test_the_time_to_stop_never_gets_longer(world: World) -> None:
    world.leave("slice-1", SliceState.PREEMPTED, Reason.PREEMPTION_NOTICE)
    world.attempt.stop_at = NOW + 5.0
    assert (world.look().stop_at, stop_due(world.attempt)) == (NOW + 5.0, NOW + 5.0)
    world.look(NOW + 5.0)
    assert (world.attempt.force_by, stop_due(world.attempt)) == (NOW + 5.0, FOREVER)


def test_a_slice_whose_work_is_gone_leaves_the_others_their_time_though_its_node_ends(world: World) -> None:
    life = world.leave("slice-1", SliceState.DRAINING, Reason.WORK_GONE)
    life.view.hosts[0].notices = {"gce": EPOCH + 60.0}
    world.attempt.stop_at = world.look().stop_at
    world.end("slice-1", Outcome(OutcomeKind.RAISED, "saved"))
    life.view.hosts[0].lost = Loss(Reason.NODE_DIED, "drained")
    assert world.look(NOW + 5.0).stop_at == NOW + 60.0


class TestDeadAgent:
    @pytest.mark.parametrize("first", ["notice", "death"])
    def test_under_a_notice_charges_preemptions(self, world: World, first: str) -> None:
        life = world.leave("slice-1", SliceState.PREEMPTED, Reason.AGENT_DIED, lost=True)
        life.view.hosts[0].lost = Loss(Reason.AGENT_DIED, "exit code 1")
        if first == "death":
            assert world.look().departures["slice-1"].departure is Departure.FAILED
        life.view.hosts[1].notices = {"ray-drain": EPOCH + 60.0}
        assert world.look().departures["slice-1"].departure is Departure.PREEMPTED

    def test_on_a_living_node_charges_failures_after_a_look_at_the_nodes(self, world: World) -> None:
        life = world.leave("slice-1", SliceState.PREEMPTED, Reason.AGENT_DIED, lost=True)
        life.view.hosts[0].lost = Loss(Reason.AGENT_DIED, "exit code 1")
        world.end("slice-1", Outcome(OutcomeKind.STOPPED))
        world.end("slice-2", Outcome(OutcomeKind.STOPPED))
        assert world.look().verdict is None
        ended = world.look(NOW + 2.0, nodes_every_s=1.0).verdict
        assert ended is not None
        assert ended[0] is Ended.FAILED

    def test_on_a_node_that_proves_dead_charges_preemptions(self, world: World) -> None:
        life = world.leave("slice-1", SliceState.PREEMPTED, Reason.AGENT_DIED, lost=True)
        life.view.hosts[0].lost = Loss(Reason.AGENT_DIED, "exit code 1")
        assert world.look().departures["slice-1"].departure is Departure.FAILED
        life.view.hosts[0].lost = Loss(Reason.NODE_DIED, "dead")
        assert world.look().departures["slice-1"].departure is Departure.PREEMPTED

    @pytest.mark.parametrize(
        ("node", "after_s", "expected"),
        [("lives", 2.0, Ended.FAILED), ("died", 1.0, Ended.PREEMPTED), ("gone", 1.0, Ended.PREEMPTED)],
    )
    @pytest.mark.parametrize("what", ["agent", "process"])
    def test_is_judged_by_its_node_also_when_the_slice_is_gone(
        self, world: World, what: str, node: str, after_s: float, expected: Ended
    ) -> None:
        if what == "agent":
            world.leave("slice-1", SliceState.PREEMPTED, Reason.AGENT_DIED, lost=True)
            world.look()
            world.release("slice-1")
        else:
            world.end("slice-1", Outcome(OutcomeKind.CRASHED, "killed"))
        world.end("slice-2", Outcome(OutcomeKind.STOPPED))
        assert world.look().verdict is None
        assert world.attempt.state is AttemptState.ENDED
        if node == "died":
            world.nodes["node-1"] = Node("node-1", alive=False)
        elif node == "gone":
            del world.nodes["node-1"]
        assert self.ended(world, NOW + after_s) is expected
        assert not world.run.unsettled

    def ended(self, world: World, now: float) -> Ended:
        ended = world.look(now, nodes_every_s=1.0).verdict
        assert ended is not None
        return ended[0]

    def test_does_not_hold_up_a_run_that_can_afford_either_charge(self, world: World) -> None:
        world.run.options = RunOptions(max_preemptions=1, max_failures=1)
        world.leave("slice-1", SliceState.PREEMPTED, Reason.AGENT_DIED, lost=True)
        world.look()
        world.release("slice-1")
        world.end("slice-2", Outcome(OutcomeKind.STOPPED))
        assert world.look().verdict is None
        assert may_retry(world.run)
        assert self.ended(world, NOW + 2.0) is Ended.FAILED

    def test_is_charged_though_the_next_attempt_succeeds_when_its_node_is_seen_dead(self, world: World) -> None:
        world.end("slice-1", Outcome(OutcomeKind.CRASHED, "killed"))
        world.end("slice-2", Outcome(OutcomeKind.STOPPED))
        world.look()
        again = Attempt(AttemptSpec("run-1/2", "run-1", 2, ("slice-2",), 2, None), 0.0, AttemptState.RUNNING)
        again.nodes = world.attempt.nodes[2:]
        world.run.begin(again)
        world.ledger.attempts["run-1/2"] = again
        for rank in range(2):
            again.record("slice-2", rank, RETURNED)
        world.nodes["node-1"] = Node("node-1", alive=False)
        assert self.ended(world, NOW + 1.0) is Ended.PREEMPTED
        assert (world.run.preemptions, world.run.unsettled) == (1, [])
        assert (again.ended, world.run.ended) == (Ended.SUCCEEDED, Ended.SUCCEEDED)

    def test_an_exception_is_a_failure_whatever_its_node_does(self, world: World) -> None:
        world.end("slice-1", Outcome(OutcomeKind.RAISED, "ValueError"))
        world.end("slice-2", Outcome(OutcomeKind.STOPPED))
        del world.nodes["node-0"]
        assert self.ended(world, NOW) is Ended.FAILED

    def test_a_table_that_was_not_read_proves_nothing(self, world: World) -> None:
        world.nodes.clear()
        world.end("slice-1", Outcome(OutcomeKind.CRASHED, "killed"))
        world.end("slice-2", Outcome(OutcomeKind.STOPPED))
        assert world.look().verdict is None
        assert self.ended(world, NOW + 2.0) is Ended.FAILED


def test_waits_until_nothing_of_it_runs_on_any_slice(world: World) -> None:
    world.leave("slice-1", SliceState.PREEMPTED, Reason.NODE_DIED, lost=True)
    world.end("slice-2", Outcome(OutcomeKind.STOPPED))
    assert world.look().verdict is None
    world.release("slice-1")
    ended = world.look().verdict
    assert ended is not None
    assert ended[0] is Ended.PREEMPTED


class TestFence:
    """A host that neither answers nor proves dead keeps the next attempt waiting for a time, and no longer."""

    @pytest.fixture
    def lost(self, world: World) -> World:
        """Slice 1 was lost at `NOW`; its host 0 is clear, its host 1 was heard 4 s before; slice 2 has stopped."""
        life = world.leave("slice-1", SliceState.DRAINING, Reason.LOST, lost=True)
        life.heard[1] = NOW - 4.0
        world.clear("slice-1", 0)
        world.end("slice-2", Outcome(OutcomeKind.STOPPED))
        return world

    @pytest.mark.parametrize("released", [False, True])
    def test_counts_from_when_the_host_was_heard_last_also_when_the_slice_is_gone(
        self, lost: World, *, released: bool
    ) -> None:
        assert lost.look(fence_s=20.0).due == NOW + 16.0
        assert lost.attempt.fences == {1: NOW + 16.0}
        if released:
            del lost.lives["slice-1"]
        assert lost.look(NOW + 15.9, fence_s=20.0).verdict is None
        seen = lost.look(NOW + 16.0, fence_s=20.0)
        assert lost.attempt.clear[1] is Clear.BY_TIME
        assert seen.verdict is not None
        assert seen.verdict[0] is Ended.PREEMPTED

    def test_is_not_waited_for_once_the_host_is_clear(self, lost: World) -> None:
        assert lost.look().verdict is None
        lost.attempt.clear[1] = Clear.HOST_DIED
        assert lost.look().verdict is not None

    def test_does_not_begin_while_work_has_time_to_save(self, world: World) -> None:
        life = world.leave("slice-1", SliceState.DRAINING, Reason.OPERATOR)
        life.drain_by = NOW + 60.0
        world.attempt.stop_at = NOW + 60.0
        world.look(NOW + 59.0)
        assert world.attempt.fences == {}
        world.look(NOW + 61.0, fence_s=20.0)
        assert world.attempt.fences == {0: NOW + 80.0, 1: NOW + 80.0}

    def test_of_a_slice_that_is_part_of_the_attempt_is_none(self, world: World) -> None:
        world.attempt.stop_at = NOW - 100.0
        world.look()
        assert world.attempt.fences == {}


def test_a_cancelled_run_is_stopped_at_once_with_the_grace_in_the_request(world: World) -> None:
    world.run.cancel_by = 9.0
    assert world.look().stop_at == NOW
    world.end("slice-1", Outcome(OutcomeKind.STOPPED))
    world.end("slice-2", Outcome(OutcomeKind.STOPPED))
    ended = world.look().verdict
    assert ended is not None
    assert ended[0] is Ended.CANCELLED


def test_a_drained_slice_that_has_saved_at_once_leaves_the_others_the_time_that_was_given(world: World) -> None:
    life = world.leave("slice-1", SliceState.DRAINING, Reason.OPERATOR)
    life.drain_by = NOW + 12.0
    world.end("slice-1", Outcome(OutcomeKind.RAISED, "saved"))
    assert world.look().stop_at == NOW + 12.0
