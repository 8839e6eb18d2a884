"""What every backend does: one suite for the simulated cluster and for Ray, so that they cannot drift apart.

Tests that destroy a host add a slice of their own, and keep to it by avoiding all others.
"""

from typing import Any

import pytest

from sliceform.controller.model.effects import Assemble, Notify, Release, Reserve, Stop
from sliceform.controller.model.events import (
    AgentUp,
    Assembled,
    Explained,
    HostDied,
    HostLost,
    HostNoticed,
    NodesSeen,
    Notified,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Released,
    Reserved,
)
from sliceform.controller.model.shapes import TpuSlice
from sliceform.states.reasons import Reason

#: `conftest.Harness`, which cannot be imported from here.
Harness = Any


def codes(harness: Harness, slice_id: str, code: str, *avoid: str) -> set[str]:
    """Wait until this code is among the findings; return what it is said about."""

    def found() -> set[str]:
        findings = harness.backend.explain(slice_id, None, dict.fromkeys(avoid, "lost: it was"))
        return {finding.subject for finding in findings if finding.code == code}

    subjects: set[str] = harness.until(found)
    return subjects


class TestLife:
    def test_of_a_slice_from_reservation_to_release(self, harness: Harness) -> None:
        reserved = harness.reserve("a")
        assert reserved.place in harness.places
        assert reserved.nodes == (harness.node_id(reserved.place, 0),)
        harness.submit(Assemble("a", harness.shape, reserved.place))
        agents = harness.wait_for(AgentUp, slice_id="a", count=2)
        (assembled,) = harness.wait_for(Assembled, slice_id="a")
        assert assembled.nodes == tuple(harness.node_id(reserved.place, i) for i in range(2))
        assert {(e.rank, e.node_id, e.devices) for e in agents} == {
            (rank, node, 4) for rank, node in enumerate(assembled.nodes)
        }
        assert all(e.address for e in agents)
        harness.until(lambda: {("a", 0), ("a", 1)} <= harness.beats)
        harness.release("a")

    def test_is_told_once_more_when_asked_once_more(self, harness: Harness) -> None:
        assembled = harness.bring_up("a")
        (reserved,) = harness.told(Reserved)
        harness.submit(Reserve("a", harness.shape))
        assert harness.wait_for(Reserved, slice_id="a", count=2) == [reserved] * 2
        harness.submit(Assemble("a", harness.shape, reserved.place))
        assert harness.wait_for(Assembled, slice_id="a", count=2)[1] == assembled
        agents = harness.wait_for(AgentUp, slice_id="a", count=4)
        assert set(agents[:2]) == set(agents[2:])
        harness.release("a")

    def test_never_shares_its_place(self, harness: Harness) -> None:
        first, second = harness.reserve("a"), harness.reserve("b")
        assert first.place != second.place
        harness.submit(Reserve("c", harness.shape, frozenset(harness.places[2:])))
        harness.quiet(1.0, lambda: harness.told(Reserved, slice_id="c"))
        harness.release("a")
        (third,) = harness.wait_for(Reserved, slice_id="c")
        assert third.place == first.place
        harness.release("b", "c")

    def test_keeps_away_from_what_is_to_be_avoided(self, harness: Harness) -> None:
        first, *others = harness.places
        for life in ("a", "b"):
            assert harness.reserve(life, avoid=frozenset(others)).place == first
            harness.release(life)
        assert harness.reserve("c", avoid=frozenset({first})).place in others
        harness.release("c")

    def test_takes_what_need_not_be_avoided_any_more(self, harness: Harness) -> None:
        harness.submit(Reserve("a", harness.shape, frozenset(harness.places)))
        harness.quiet(0.3, lambda: harness.told(Reserved))
        harness.reserve("a", avoid=frozenset(harness.places[1:]))
        harness.release("a")

    def test_can_end_before_it_is_placed(self, harness: Harness) -> None:
        harness.submit(Reserve("a", harness.shape, frozenset(harness.places)))
        harness.quiet(0.3, lambda: harness.told(Reserved))
        harness.release("a")

    def test_that_never_was_is_released_as_often_as_asked(self, harness: Harness) -> None:
        harness.submit(Release("a", 0.0))
        harness.submit(Release("a", 0.0))
        harness.wait_for(Released, slice_id="a", count=2)


class TestNodeTable:
    def test_is_read_again_and_again(self, harness: Harness) -> None:
        harness.until(lambda: len(harness.told(NodesSeen)) >= 3)
        first, *later = harness.told(NodesSeen)
        assert first.changed == set(first.nodes)
        assert all(not read.changed for read in later)

    def test_says_which_host_of_which_slice_a_node_is(self, harness: Harness) -> None:
        rows = harness.nodes().nodes
        for place in harness.places:
            for worker_id in range(2):
                row = rows[harness.node_id(place, worker_id)]
                assert row.alive
                assert (row.place, row.worker_id, row.pod_type) == (place, worker_id, "v4-16")
                assert (row.topology, row.resources["TPU"]) == ("2x2x2", 4)
                assert row.resources["CPU"] >= 1


class TestPlaces:
    def test_a_head_is_claimed_wherever_a_worker_0_lives(self, harness: Harness) -> None:
        others = frozenset(harness.places)
        place = harness.add_slice(missing=(1,))
        assert harness.reserve("a", avoid=others).place == place
        harness.release("a")

    def test_that_are_double_have_two_heads_which_are_told_apart_by_their_nodes(self, harness: Harness) -> None:
        others = frozenset(harness.places)
        place = harness.add_slice()
        nodes = {harness.node_id(place, 0), harness.add_double(place, 0)}
        first, second = harness.reserve("a", avoid=others), harness.reserve("b", avoid=others)
        assert (first.place, second.place) == (place, place)
        assert {*first.nodes, *second.nodes} == nodes
        assert codes(harness, "a", "place_unfit") == {place}
        harness.release("b")
        harness.submit(Reserve("c", harness.shape, others, frozenset(second.nodes)))
        harness.quiet(0.5, lambda: harness.told(Reserved, slice_id="c"))
        harness.submit(Reserve("c", harness.shape, others))
        assert harness.wait_for(Reserved, slice_id="c")[0].nodes == second.nodes
        harness.release("a", "c")


class TestLoss:
    def test_of_a_host_is_told_and_ends_its_process_and_no_other(self, harness: Harness) -> None:
        others = frozenset(harness.places)
        place = harness.add_slice()
        harness.bring_up("a", avoid=others)
        node = harness.node_id(place, 1)
        harness.launch("a", fn=harness.busy(3.0))
        harness.wait_for(ProcessStarted, slice_id="a", count=2)
        harness.kill_host(place, 1)

        def known() -> bool:
            lost = [event.rank for event in harness.told(HostLost, slice_id="a")]
            row = harness.nodes().nodes[node]
            return lost == [1] or not row.alive

        harness.until(known)
        ended = harness.wait_for(ProcessEnded, slice_id="a", count=2)
        assert {e.rank: e.outcome.kind for e in ended} == {
            0: OutcomeKind.RETURNED,
            1: OutcomeKind.LOST,
        }
        harness.release("a", lost=True)
        assert all(event.rank == 1 for event in harness.told(HostLost, slice_id="a"))

    @pytest.mark.parametrize("part", ["head", "hosts"])
    def test_of_a_group_that_somebody_removed_is_told_as_that_of_the_slice(self, harness: Harness, part: str) -> None:
        harness.bring_up("a")
        harness.remove_group("a", part)
        begin = harness.now()
        lost = harness.wait_for(HostLost, slice_id="a")[0]
        # All groups are asked for once a second: the rest is for a busy machine.
        assert harness.now() - begin < 10.0
        assert (lost.rank, lost.reason) == (None, Reason.GROUP_LOST)
        assert harness.told(HostNoticed, slice_id="a") == []
        harness.release("a", lost=True)


class TestFence:
    """Of every host of a lost slice it is told when nothing of the work is left there, and not before."""

    def start(self, harness: Harness) -> str:
        others = frozenset(harness.places)
        place: str = harness.add_slice()
        harness.bring_up("a", avoid=others)
        harness.launch("a", fn=harness.busy(600.0))
        harness.wait_for(ProcessStarted, slice_id="a", count=2)
        return place

    def test_a_host_that_lives_says_so_and_one_that_died_is_seen_to_have(self, harness: Harness) -> None:
        place = self.start(harness)
        harness.kill_host(place, 1)
        harness.submit(Release("a", 0.0, lost=True, attempt_key="run-1/1"))
        (died,) = harness.wait_for(HostDied, slice_id="a")
        (gone,) = harness.wait_for(ProcessGone, slice_id="a")
        assert (died.rank, gone.rank, gone.attempt) == (1, 0, "run-1/1")
        harness.wait_for(Released, slice_id="a")

    def test_a_host_that_stands_still_ends_its_work_as_soon_as_it_goes_on(self, harness: Harness) -> None:
        place = self.start(harness)
        harness.freeze_host(place, 1)
        harness.submit(Release("a", 0.0, lost=True, attempt_key="run-1/1"))
        harness.wait_for(Released, slice_id="a")
        harness.quiet(1.0, lambda: [e for e in harness.told(ProcessGone, HostDied, slice_id="a") if e.rank == 1])
        harness.thaw_host(place, 1)
        harness.until(lambda: [e for e in harness.told(ProcessGone, slice_id="a") if e.rank == 1], patience_s=5.0)

    def test_hosts_that_an_attempt_never_reached_are_clear_of_it(self, harness: Harness) -> None:
        harness.bring_up("a")
        harness.submit(Release("a", 0.0, lost=True, attempt_key="run-1/1"))
        gone = harness.wait_for(ProcessGone, slice_id="a", count=2)
        assert {(event.rank, event.attempt) for event in gone} == {(0, "run-1/1"), (1, "run-1/1")}
        harness.wait_for(Released, slice_id="a")


class TestWork:
    def test_returns_its_values_by_rank(self, harness: Harness) -> None:
        def where() -> tuple[int, ...]:
            from sliceform.controller import host_context

            here = host_context()
            return (here.rank, here.world_size, here.slice_rank, here.num_slices, here.host_rank)

        harness.bring_up("a")
        harness.bring_up("b")
        harness.launch("a", "b", fn=where)
        for slice_rank, life in enumerate(("a", "b")):
            ended = harness.wait_for(ProcessEnded, slice_id=life, count=2)
            values = {e.rank: e.outcome.load() for e in ended}
            ranks = range(2)
            assert values == {r: (2 * slice_rank + r, 4, slice_rank, 2, r) for r in ranks}
            assert {e.rank for e in harness.wait_for(ProcessStarted, slice_id=life, count=2)} == {0, 1}
            gone = harness.wait_for(ProcessGone, slice_id=life, count=2)
            assert {(e.rank, e.attempt) for e in gone} == {(0, "run-1/1"), (1, "run-1/1")}
        harness.release("a", "b")

    def test_that_raises_gives_the_users_traceback(self, harness: Harness) -> None:
        def fail_on_purpose() -> None:
            raise KeyError("what was looked for")

        harness.bring_up("a")
        harness.launch("a", fn=fail_on_purpose)
        for event in harness.wait_for(ProcessEnded, slice_id="a", count=2):
            assert event.outcome.kind is OutcomeKind.RAISED
            assert "in fail_on_purpose" in event.outcome.traceback
            assert "what was looked for" in event.outcome.detail
        harness.wait_for(ProcessGone, slice_id="a", count=2)
        harness.release("a")

    def test_is_stopped_when_asked(self, harness: Harness) -> None:
        harness.bring_up("a")
        harness.launch("a", fn=harness.busy(600.0))
        harness.wait_for(ProcessStarted, slice_id="a", count=2)
        harness.submit(Notify("a", "run-1/1", None))
        assert harness.wait_for(Notified, slice_id="a") == [Notified("a", "run-1/1", None)]
        harness.submit(Stop("a", "run-1/1", 0.1))
        ended = harness.wait_for(ProcessEnded, slice_id="a", count=2)
        assert {e.outcome.kind for e in ended} == {OutcomeKind.STOPPED}
        harness.wait_for(ProcessGone, slice_id="a", count=2)
        before = len(harness.told(ProcessGone))
        harness.submit(Stop("a", "run-1/1", 0.1))
        harness.until(lambda: len(harness.told(ProcessGone)) >= before + 2)
        harness.release("a")

    def test_runs_once_however_often_it_is_launched(self, harness: Harness) -> None:
        def who() -> float:
            import time

            return time.perf_counter()

        harness.bring_up("a")
        harness.launch("a", fn=who)
        first = harness.wait_for(ProcessEnded, slice_id="a", count=2)
        values = {e.rank: e.outcome.load() for e in first}
        harness.launch("a", fn=who)
        again = harness.wait_for(ProcessEnded, slice_id="a", count=4)
        assert {e.rank: e.outcome.load() for e in again[2:]} == values
        harness.release("a")

    def test_that_still_runs_ends_with_its_slice(self, harness: Harness) -> None:
        harness.bring_up("a")
        harness.launch("a", fn=harness.busy(600.0))
        harness.wait_for(ProcessStarted, slice_id="a", count=2)
        harness.release("a", lost=True)

    def test_has_less_time_when_its_slice_is_released_again_with_less(self, harness: Harness) -> None:
        harness.bring_up("a")
        harness.launch("a", fn=harness.busy(600.0))
        harness.wait_for(ProcessStarted, slice_id="a", count=2)
        harness.submit(Release("a", 600.0))
        harness.release("a")


class TestExplain:
    def test_no_such_pod_type(self, harness: Harness) -> None:
        harness.open(TpuSlice("v5p-16"))
        harness.submit(Reserve("a", harness.shape))
        assert codes(harness, "a", "no_such_pod_type") == {"v5p-16"}
        harness.release("a")

    def test_chips_held_by_another_group(self, harness: Harness) -> None:
        first, *others = harness.places
        avoid = frozenset(others)
        with harness.hold(first, "somebody-elses"):
            harness.submit(Reserve("a", harness.shape, avoid))
            harness.submit(Assemble("a", harness.shape, first))
            assert "somebody-elses" in codes(harness, "a", "chips_held", *avoid)
            harness.release("a")

    def test_host_missing(self, harness: Harness) -> None:
        others = frozenset(harness.places)
        place = harness.add_slice(missing=(1,))
        reserved = harness.reserve("a", avoid=others)
        harness.submit(Assemble("a", harness.shape, reserved.place))
        assert codes(harness, "a", "host_missing", *others) == {f"{place}/1"}
        harness.release("a")

    def test_avoided(self, harness: Harness) -> None:
        avoid = frozenset(harness.places)
        harness.submit(Reserve("a", harness.shape, avoid))
        assert avoid <= codes(harness, "a", "avoided", *avoid)
        harness.backend.inquire("a", None, dict.fromkeys(avoid, "lost: it was"))
        (told,) = harness.wait_for(Explained, slice_id="a")
        assert avoid <= {finding.subject for finding in told.findings}
        harness.release("a")


def test_work_that_cannot_travel_is_refused_where_it_has_to(harness: Harness) -> None:
    """Only what is really sent has to be pickled; the simulated cluster sends nothing."""
    import threading

    from sliceform.controller.errors import UnpicklableFunctionError
    from sliceform.controller.testing import SimBackend

    if isinstance(harness.backend, SimBackend):
        assert harness.backend.pack(print, (threading.Lock(),), {}).fn is print
        return
    with pytest.raises(UnpicklableFunctionError, match="argument"):
        harness.backend.pack(print, (threading.Lock(),), {})
