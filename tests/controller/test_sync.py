"""`sync` tells what became of a slice, in facts, from what was observed alone."""

import copy
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.model.finding import Finding
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.commit import commit
from sliceform.controller.reconcile.decide.life import Life, Limits, Loss
from sliceform.controller.reconcile.decide.step import Step
from sliceform.controller.reconcile.decide.sync import FOREVER, due, sync
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states import HOST_TABLE, SLICE_TABLE, History, replay
from sliceform.states.hosts import HostState
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState, SliceTrigger
from sliceform.states.table import Kind

NOW = 100.0
LIMITS = Limits(pending_s=90.0, placed_s=60.0, silence_s=10.0, stuck_s=60.0, devices=4)
KEY = "run-1/1"

FACTS = {row.trigger for table in (SLICE_TABLE, HOST_TABLE) for row in table.rows if row.kind is Kind.FACT}


def kinds(steps: list[Step]) -> list[tuple[int | None, str | None]]:
    return [(step.rank, step.trigger and step.trigger.value) for step in steps]


def in_state(state: SliceState, host: HostState) -> Life:
    """Return a slice of two hosts with all that leads to this state observed, and nothing beyond."""
    life = Life.begin("slice-1", 2, generation=0, replaces=None)
    record, view = life.record, life.view
    record.state = state
    for own in record.hosts:
        own.state = host
    if state is not SliceState.PENDING:
        view.reserved, view.place, record.place = True, "a", "a"
        for rank, seen in enumerate(view.hosts):
            seen.node_id = f"n{rank}"
    if host in {HostState.READY, HostState.RUNNING}:
        for rank, seen in enumerate(view.hosts):
            seen.agent_node, seen.devices = f"n{rank}", 4
    if state is SliceState.RUNNING:
        record.attempt = KEY
        for seen in view.hosts:
            seen.alive = KEY
    record.since = NOW
    life.heard, life.raylet_heard = [NOW, NOW], [NOW, NOW]
    return life


class TestWhateverIsObserved:
    @given(st.data(), st.booleans())
    @settings(max_examples=100)
    def test_yields_only_facts_and_notes(
        self,
        any_life: st.SearchStrategy[Life],
        data: st.DataObject,
        held: bool,  # noqa: FBT001 - drawn
    ) -> None:
        life = data.draw(any_life)
        for step in sync(life, NOW, replace(LIMITS, silence_held=held)):
            assert step.trigger is None or step.trigger in FACTS
            assert step.slice_id == life.record.id

    @given(st.data())
    @settings(max_examples=100)
    def test_changes_nothing_and_says_the_same_again(
        self, any_life: st.SearchStrategy[Life], data: st.DataObject
    ) -> None:
        life = data.draw(any_life)
        before = (copy.deepcopy(life.view), life.version, life.record.state)
        assert sync(life, NOW, LIMITS) == sync(life, NOW, LIMITS)
        assert (life.view, life.version, life.record.state) == before

    @given(st.data())
    @settings(max_examples=100)
    def test_says_nothing_more_once_its_facts_are_committed(
        self, any_life: st.SearchStrategy[Life], data: st.DataObject
    ) -> None:
        """A fact may open the next state, whose facts may be there already: a few rounds, never an endless one."""
        life = data.draw(any_life)
        ledger = Ledger.begin(TpuSlice("v4-16"), Desired((1,)), Settings(), History(), seed=0)
        ledger.fleet.lives[life.record.id] = life
        ledger.fleet.now, ledger.fleet.epoch = NOW, NOW
        for _ in range(4):
            steps = sync(life, NOW, LIMITS)
            if not steps:
                break
            commit(ledger, steps)
        assert sync(life, NOW, LIMITS) == []
        base = {change.key: change.source for change in reversed(tuple(ledger.history)) if change.source}
        assert replay(ledger.history, base) == ()

    @given(st.data())
    def test_time_brings_nothing_before_it_is_due(self, any_life: st.SearchStrategy[Life], data: st.DataObject) -> None:
        life = data.draw(any_life)
        if sync(life, NOW, LIMITS):
            return
        when = due(life, LIMITS)
        assert when > NOW
        assert sync(life, min(when - 0.01, 1e9), LIMITS) == []


class TestPending:
    def test_waits(self) -> None:
        life = in_state(SliceState.PENDING, HostState.PENDING)
        assert sync(life, NOW + 89.0, LIMITS) == []
        assert due(life, LIMITS) == NOW + 90.0

    def test_notes_what_holds_it_up_when_that_is_another_thing(self) -> None:
        life = in_state(SliceState.PENDING, HostState.PENDING)
        life.view.held_up = (Finding("chips_held", "held by x", "x"),)
        assert sync(life, NOW, LIMITS) == [Step("slice-1", None, None, Reason.HELD_UP, "chips_held: held by x")]
        life.noted_held_up = (Finding("chips_held", "still held by x", "x"),)
        assert sync(life, NOW, LIMITS) == []
        life.view.held_up = ()
        assert sync(life, NOW, LIMITS) == []

    def test_is_placed(self) -> None:
        life = in_state(SliceState.PENDING, HostState.PENDING)
        life.view.reserved, life.view.place = True, "a"
        assert sync(life, NOW, LIMITS) == [Step("slice-1", None, SliceTrigger.PLACE, Reason.PLACED, "on a")]

    @pytest.mark.parametrize(
        ("seen", "limits", "now", "reason"),
        [
            ({"refused": "no"}, LIMITS, NOW, Reason.PLACE_REFUSED),
            ({"reserved": True, "place": "a"}, replace(LIMITS, avoid=frozenset("a")), NOW, Reason.PLACE_AVOIDED),
            ({}, LIMITS, NOW + 90.0, Reason.BUDGET_SPENT),
        ],
    )
    def test_expires(self, seen: dict[str, object], limits: Limits, now: float, reason: Reason) -> None:
        life = in_state(SliceState.PENDING, HostState.PENDING)
        for name, value in seen.items():
            setattr(life.view, name, value)
        (step,) = sync(life, now, limits)
        assert (step.trigger, step.reason) == (SliceTrigger.EXPIRE, reason)


class TestPlaced:
    def test_hosts_go_ahead_one_by_one_and_the_slice_last(self) -> None:
        life = in_state(SliceState.PLACED, HostState.PENDING)
        assert kinds(sync(life, NOW, LIMITS)) == [(0, "place"), (1, "place")]
        for rank, seen in enumerate(life.view.hosts):
            seen.agent_node, seen.devices = f"n{rank}", 4
        steps = sync(life, NOW, LIMITS)
        assert kinds(steps) == [(0, "place"), (0, "prepare"), (1, "place"), (1, "prepare"), (None, "prepare")]

    @pytest.mark.parametrize(
        ("seen", "reason"),
        [
            ({"agent_node": "n1", "devices": 3}, Reason.WRONG_DEVICES),
            ({"agent_node": "n7", "devices": 4}, Reason.WRONG_NODE),
            ({"failed": "no disk space"}, Reason.AGENT_FAILED),
        ],
    )
    def test_an_unfit_host_ends_it(self, seen: dict[str, object], reason: Reason) -> None:
        life = in_state(SliceState.PLACED, HostState.PLACED)
        for name, value in seen.items():
            setattr(life.view.hosts[1], name, value)
        (step,) = sync(life, NOW, LIMITS)
        assert (step.rank, step.trigger, step.reason) == (None, SliceTrigger.EXPIRE, reason)
        assert step.detail.startswith("host 1: ")

    def test_expires_when_agents_take_too_long(self) -> None:
        life = in_state(SliceState.PLACED, HostState.PLACED)
        assert sync(life, NOW + 59.9, LIMITS) == []
        (step,) = sync(life, NOW + 60.0, LIMITS)
        assert (step.trigger, step.reason) == (SliceTrigger.EXPIRE, Reason.BUDGET_SPENT)
        assert "2 of 2 hosts" in step.detail


class TestLoss:
    @pytest.mark.parametrize(
        ("state", "host"),
        [
            (SliceState.PLACED, HostState.PENDING),
            (SliceState.READY, HostState.READY),
            (SliceState.RUNNING, HostState.RUNNING),
        ],
    )
    def test_of_one_host_is_that_of_the_slice(self, state: SliceState, host: HostState) -> None:
        life = in_state(state, host)
        life.view.hosts[1].lost = Loss(Reason.NODE_DIED, "killed")
        steps = sync(life, NOW, LIMITS)
        assert kinds(steps) == [(None, "preempt"), (1, "preempt")], "the other hosts follow by a coupling"
        assert [step.reason for step in steps] == [Reason.NODE_DIED, Reason.NODE_DIED]
        assert {step.cause for step in steps} == {"slice-1/1"}

    def test_notice_of_one_host_too(self) -> None:
        life = in_state(SliceState.READY, HostState.READY)
        life.view.hosts[0].notices = {"gce": 500.0}
        steps = sync(life, NOW, LIMITS)
        assert [step.reason for step in steps] == [Reason.PREEMPTION_NOTICE, Reason.PREEMPTION_NOTICE]
        assert "deadline at 500" in steps[0].detail

    def test_a_loss_says_more_than_a_notice(self) -> None:
        life = in_state(SliceState.READY, HostState.READY)
        life.view.hosts[0].notices = {"gce": None}
        life.view.hosts[1].lost = Loss(Reason.NODE_GONE, "")
        assert sync(life, NOW, LIMITS)[0].reason is Reason.NODE_GONE

    @pytest.mark.parametrize("which", ["heard", "raylet_heard"])
    def test_silence_of_the_agent_or_of_its_node_counts(self, which: str) -> None:
        life = in_state(SliceState.READY, HostState.READY)
        later = NOW + 10.0
        life.heard, life.raylet_heard = [later, later], [later, later]
        getattr(life, which)[1] = NOW
        assert due(life, LIMITS) == later
        steps = sync(life, later, LIMITS)
        assert (steps[0].reason, steps[0].cause) == (Reason.SILENT, "slice-1/1")
        assert sync(life, later - 0.1, LIMITS) == []
        assert sync(life, later, replace(LIMITS, silence_held=True)) == []

    def test_who_has_never_answered_is_not_silent(self) -> None:
        life = in_state(SliceState.PLACED, HostState.PLACED)
        assert sync(life, NOW + 50.0, LIMITS) == []

    def test_after_a_notice_is_a_note(self) -> None:
        life = in_state(SliceState.PREEMPTED, HostState.PREEMPTED)
        assert sync(life, NOW, LIMITS) == []
        life.view.hosts[0].lost = Loss(Reason.NODE_DIED, "gone")
        assert sync(life, NOW, LIMITS) == [Step("slice-1", None, None, Reason.LOST_AFTER_NOTICE, "gone")]
        life.noted_loss = True
        assert sync(life, NOW, LIMITS) == []

    def test_further_notices_and_their_end_are_notes(self) -> None:
        life = in_state(SliceState.PREEMPTED, HostState.PREEMPTED)
        life.view.hosts[0].notices = {"gce": 500.0}
        assert [step.reason for step in sync(life, NOW, LIMITS)] == [Reason.NOTICE_MERGED]
        life.noted_notice = life.view.hosts[0].notice
        assert sync(life, NOW, LIMITS) == []
        life.view.hosts[0].notices = None
        assert [step.reason for step in sync(life, NOW, LIMITS)] == [Reason.NOTICE_WITHDRAWN]


class TestWork:
    def test_starts_host_by_host(self) -> None:
        life = in_state(SliceState.RUNNING, HostState.READY)
        life.view.hosts[1].alive = None
        assert kinds(sync(life, NOW, LIMITS)) == [(0, "start")]

    def test_has_ended_on_a_host_when_its_outcome_is_known_and_its_process_gone(self) -> None:
        life = in_state(SliceState.RUNNING, HostState.RUNNING)
        life.view.hosts[0].gone = KEY
        assert sync(life, NOW, LIMITS) == []
        life.view.outcomes[KEY, 0] = Outcome(OutcomeKind.RETURNED)
        assert kinds(sync(life, NOW, LIMITS)) == [(0, "finish")]

    def test_frees_the_slice_only_when_the_whole_attempt_is_over(self) -> None:
        life = in_state(SliceState.RUNNING, HostState.RUNNING)
        for rank, seen in enumerate(life.view.hosts):
            seen.gone = KEY
            life.view.outcomes[KEY, rank] = Outcome(OutcomeKind.RETURNED)
        assert kinds(sync(life, NOW, LIMITS)) == [(0, "finish"), (1, "finish")]
        life.over = KEY
        assert kinds(sync(life, NOW, LIMITS))[-1] == (None, "finish")

    def test_of_a_process_too_short_to_be_seen_alive(self) -> None:
        life = in_state(SliceState.RUNNING, HostState.READY)
        for rank, seen in enumerate(life.view.hosts):
            seen.alive, seen.gone = None, KEY
            life.view.outcomes[KEY, rank] = Outcome(OutcomeKind.RETURNED)
        life.over = KEY
        assert kinds(sync(life, NOW, LIMITS)) == [(None, "finish")]

    @pytest.mark.parametrize("state", [SliceState.PREEMPTED, SliceState.DRAINING])
    def test_that_ends_after_its_slice_left_is_a_note(self, state: SliceState) -> None:
        life = in_state(state, HostState(state))
        life.record.attempt = KEY
        assert sync(life, NOW, LIMITS) == []
        life.view.outcomes[KEY, 1] = Outcome(OutcomeKind.STOPPED)
        assert sync(life, NOW, LIMITS) == [Step("slice-1", None, None, Reason.WORK_ENDED, KEY, "slice-1/1")]
        life.noted_end = True
        assert sync(life, NOW, LIMITS) == []

    @pytest.mark.parametrize("known", ["lost", "noted_loss", "noted_end"])
    def test_whose_end_is_known_is_not_noted_again(self, known: str) -> None:
        life = in_state(SliceState.PREEMPTED, HostState.PREEMPTED)
        life.record.attempt = KEY
        life.view.hosts[0].gone = KEY
        setattr(life.record if known == "lost" else life, known, True)
        assert sync(life, NOW, LIMITS) == []


class TestDraining:
    def test_is_released_when_its_groups_are_seen_removed(self) -> None:
        life = in_state(SliceState.DRAINING, HostState.DRAINING)
        assert sync(life, NOW, LIMITS) == []
        life.view.released = True
        assert kinds(sync(life, NOW, LIMITS)) == [(None, "release")]

    def test_that_does_not_end_is_reported_once(self) -> None:
        life = in_state(SliceState.DRAINING, HostState.DRAINING)
        assert due(life, LIMITS) == NOW + 60.0
        (step,) = sync(life, NOW + 60.0, LIMITS)
        assert (step.trigger, step.reason) == (None, Reason.STUCK)
        life.noted_stuck = True
        assert sync(life, NOW + 600.0, LIMITS) == []
        assert due(life, LIMITS) == FOREVER
