"""Events fold into views; twice is once, and what is about the past changes nothing."""

import copy
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sliceform.controller.model.events import (
    AgentFailed,
    AgentUp,
    Assembled,
    HostLost,
    HostNoticed,
    Node,
    NoticeWithdrawn,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Refused,
    Released,
    Reserved,
    SliceEvent,
)
from sliceform.controller.reconcile.decide.fold import fold, fold_node
from sliceform.controller.reconcile.decide.life import Life, Notice
from sliceform.states.reasons import Reason

LIFE, KEY = "slice-1", "run-1/1"
RETURNED = Outcome(OutcomeKind.RETURNED)

events = st.one_of(
    st.builds(Reserved, st.just(LIFE), st.sampled_from(["a", "b"]), st.just(("n0",))),
    st.builds(Refused, st.just(LIFE), st.just("no")),
    st.builds(Assembled, st.just(LIFE), st.sampled_from([("n0", "n1"), ("n0", "n2")])),
    st.builds(AgentUp, st.just(LIFE), st.integers(0, 1), st.sampled_from(["n0", "n1"]), st.just("ip"), st.just(4)),
    st.builds(AgentFailed, st.just(LIFE), st.integers(0, 1), st.just("disk")),
    st.builds(
        HostLost,
        st.just(LIFE),
        st.sampled_from([None, 0, 1]),
        st.sampled_from([Reason.AGENT_DIED, Reason.NODE_DIED, Reason.GROUP_LOST]),
        st.just("gone"),
    ),
    st.builds(HostNoticed, st.just(LIFE), st.integers(0, 1), st.sampled_from(["gce", "own"]), st.just(5.0)),
    st.builds(NoticeWithdrawn, st.just(LIFE), st.integers(0, 1), st.sampled_from(["gce", "own"])),
    st.builds(ProcessStarted, st.just(LIFE), st.integers(0, 1), st.sampled_from([KEY, "run-0/1"])),
    st.builds(ProcessEnded, st.just(LIFE), st.integers(0, 1), st.sampled_from([KEY, "run-0/1"]), st.just(RETURNED)),
    st.builds(ProcessGone, st.just(LIFE), st.integers(0, 1), st.sampled_from([KEY, "run-0/1"])),
    st.builds(Released, st.just(LIFE)),
)


@pytest.fixture
def life() -> Life:
    return begin()


def begin() -> Life:
    life = Life.begin(LIFE, 2, generation=0, replaces=None)
    life.record.attempt = KEY
    return life


@given(st.lists(events, max_size=12))
def test_the_same_event_twice_changes_nothing_the_second_time(told: list[SliceEvent]) -> None:
    life = begin()
    for event in told:
        before = life.view.version
        changed = fold(life, event, 1.0)
        assert (life.view.version > before) == changed
        seen, version = copy.deepcopy(life.view), life.view.version
        assert not fold(life, event, 1.0)
        assert (life.view, life.view.version) == (seen, version)


class TestLateAnswers:
    def test_processes_of_another_attempt_are_dropped(self, life: Life) -> None:
        assert not fold(life, ProcessEnded(LIFE, 0, "run-0/9", RETURNED), 0.0)
        assert not fold(life, ProcessGone(LIFE, 0, "run-0/9"), 0.0)
        assert life.view.outcomes == {}

    def test_a_start_that_comes_after_the_end_changes_nothing(self, life: Life) -> None:
        fold(life, ProcessGone(LIFE, 0, KEY), 0.0)
        assert not fold(life, ProcessStarted(LIFE, 0, KEY), 0.0)
        assert life.view.hosts[0].alive is None

    def test_a_refusal_after_the_reservation_is_dropped(self, life: Life) -> None:
        fold(life, Reserved(LIFE, "a", ("n0",)), 0.0)
        assert not fold(life, Refused(LIFE, "no"), 0.0)

    def test_an_agent_that_answered_has_not_failed(self, life: Life) -> None:
        fold(life, AgentUp(LIFE, 0, "n0", "ip", 4), 0.0)
        assert not fold(life, AgentFailed(LIFE, 0, "disk"), 0.0)


class TestNodes:
    def test_freeze_once_and_a_move_is_a_loss(self, life: Life) -> None:
        fold(life, Assembled(LIFE, ("n0", "n1")), 0.0)
        fold(life, Assembled(LIFE, ("n0", "n2")), 0.0)
        assert life.view.nodes == ("n0", "n1")
        assert life.view.hosts[0].lost is None
        lost = life.view.hosts[1].lost
        assert lost is not None
        assert (lost.reason, "moved to node n2" in lost.detail) == (Reason.GROUP_LOST, True)

    def test_a_bundle_that_is_nowhere_is_a_loss(self, life: Life) -> None:
        fold(life, Assembled(LIFE, ("n0", "n1")), 0.0)
        fold(life, Assembled(LIFE, ("n0", "")), 0.0)
        lost = life.view.hosts[1].lost
        assert lost is not None
        assert "no longer placed" in lost.detail

    def test_a_head_that_moves_loses_the_whole_slice(self, life: Life) -> None:
        fold(life, Reserved(LIFE, "a", ("n0",)), 0.0)
        fold(life, Reserved(LIFE, "b", ("n9",)), 0.0)
        assert life.view.place == "a"
        assert life.view.lost is not None

    @pytest.mark.parametrize(
        ("row", "reason"), [(None, Reason.NODE_GONE), (Node("n0", alive=False, death="killed"), Reason.NODE_DIED)]
    )
    def test_that_die_or_vanish_are_losses(self, life: Life, row: Node | None, reason: Reason) -> None:
        assert fold_node(life, 0, "n0", row)
        assert not fold_node(life, 0, "n0", row)
        lost = life.view.hosts[0].lost
        assert lost is not None
        assert lost.reason is reason
        assert fold_node(life, None, "n0", row)
        assert life.view.lost is not None

    def test_the_death_of_a_node_says_more_than_that_of_a_process_on_it(self, life: Life) -> None:
        fold(life, HostLost(LIFE, 0, Reason.AGENT_DIED, "exit code 1"), 0.0)
        assert fold_node(life, 0, "n0", Node("n0", alive=False))
        assert not fold(life, HostLost(LIFE, 0, Reason.AGENT_DIED, "exit code 1"), 0.0)
        lost = life.view.hosts[0].lost
        assert lost is not None
        assert lost.reason is Reason.NODE_DIED

    def test_that_drain_are_under_notice_until_they_do_not(self, life: Life) -> None:
        host = life.view.hosts[0]
        fold_node(life, 0, "n0", Node("n0", alive=True, drain_epoch_s=50.0))
        fold(life, HostNoticed(LIFE, 0, "gce", 40.0), 0.0)
        assert host.notice == Notice("gce+ray-drain", 40.0)
        fold_node(life, 0, "n0", Node("n0", alive=True, drain_epoch_s=0.0))
        assert host.notices == {"gce": 40.0, "ray-drain": None}
        fold_node(life, 0, "n0", Node("n0", alive=True))
        fold(life, NoticeWithdrawn(LIFE, 0, "gce"), 0.0)
        assert host.notice is None


def test_an_agent_that_answers_has_been_heard(life: Life) -> None:
    fold(life, AgentUp(LIFE, 1, "n1", "10.0.0.1", 4, pid=77), 42.0)
    assert (life.heard, life.raylet_heard) == ([0.0, 42.0], [0.0, 42.0])
    host: Any = life.view.hosts[1]
    assert (host.agent_node, host.devices, host.address, host.agent_pid) == ("n1", 4, "10.0.0.1", 77)
