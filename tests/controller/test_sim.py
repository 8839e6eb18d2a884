"""The simulated cluster by itself: no controller, a sink that writes down what it is told."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from sliceform.controller import host_context
from sliceform.controller.errors import FleetNameTakenError
from sliceform.controller.model.backend import FleetIdentity
from sliceform.controller.model.effects import (
    Assemble,
    AttemptSpec,
    Launch,
    Notify,
    Release,
    Reserve,
    Stop,
)
from sliceform.controller.model.events import (
    AgentFailed,
    AgentUp,
    Assembled,
    EffectFailed,
    Event,
    HostLost,
    HostNoticed,
    NodesSeen,
    NoticeWithdrawn,
    ObservationFailed,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Released,
    Reserved,
)
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import CpuSlice, GpuSlice, SliceShape, TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states.reasons import Reason

V4_16 = TpuSlice("v4-16")


class World:
    """A simulated cluster with a sink that keeps everything."""

    def __init__(self, shape: SliceShape = V4_16, slices: int = 2, **options: Any) -> None:
        self.clock = FakeClock()
        self.shape = shape
        self.sim = SimBackend(shape, slices, clock=self.clock, **options)
        self.events: list[Event] = []
        self.beats: list[tuple[float, str, int, bool]] = []
        self.sim.open(FleetIdentity(None, "test", "test-1", shape, Settings()), self)

    def post(self, event: Event) -> None:
        self.events.append(event)

    def beat(self, slice_id: str, rank: int, *, raylet_ok: bool = True) -> None:
        self.beats.append((self.clock.monotonic(), slice_id, rank, raylet_ok))

    def go(self, seconds: float = 5.0) -> list[Event]:
        """Let time pass in small steps; return what was told meanwhile, node tables aside."""
        before = len(self.events)
        for _ in range(round(seconds / 0.1)):
            self.clock.advance(0.1)
            self.sim.poll()
        return [e for e in self.events[before:] if not isinstance(e, NodesSeen)]

    def reserve(self, slice_id: str, *, avoid: frozenset[str] = frozenset()) -> list[Event]:
        self.sim.submit(Reserve(slice_id, self.shape, avoid))
        return self.go()

    def bring_up(self, slice_id: str) -> Reserved:
        reserved = next(e for e in self.reserve(slice_id) if isinstance(e, Reserved))
        self.sim.submit(Assemble(slice_id, self.shape, reserved.place))
        self.go()
        return reserved

    def launch(self, slice_id: str, fn: Callable[[], Any], *, key: str = "run-1/1") -> None:
        work = self.sim.pack(fn, (), {})
        spec = AttemptSpec(key, "run-1", 1, (slice_id,), self.shape.hosts, work)
        self.sim.submit(Launch(slice_id, self.shape, spec, 0))

    def told(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    def nodes(self) -> NodesSeen:
        seen: NodesSeen = self.told(NodesSeen)[-1]
        return seen


class TestReservation:
    def test_takes_a_free_place_after_the_placement_delay(self) -> None:
        world = World(place_s=2.0)
        world.sim.submit(Reserve("a", V4_16))
        assert world.go(1.9) == []
        assert world.go(0.2) == [Reserved("a", "v4-16-1", (world.sim.node_id("v4-16-1", 0),))]

    def test_waits_until_a_place_is_free(self) -> None:
        world = World(slices=1)
        world.bring_up("a")
        assert world.reserve("b") == []
        world.sim.submit(Release("a", 0.0))
        assert [type(e) for e in world.go()] == [Released, Reserved]

    def test_a_draining_life_keeps_its_place_until_its_groups_are_removed(self) -> None:
        world = World(slices=1, remove_s=3.0)
        world.bring_up("a")
        world.sim.submit(Release("a", 0.0))
        world.sim.submit(Reserve("b", V4_16))
        assert world.go(5.5) == []
        assert set(world.sim.audit()) == {"a", "b"}
        assert [type(e) for e in world.go(2.0)] == [Released, Reserved]

    def test_leaves_out_what_is_to_be_avoided_and_what_another_holds(self) -> None:
        world = World(slices=3)
        world.sim.hold("v4-16-2")
        (reserved,) = world.reserve("a", avoid=frozenset({"v4-16-1"}))
        assert reserved == Reserved("a", "v4-16-3", (world.sim.node_id("v4-16-3", 0),))
        assert world.reserve("b", avoid=frozenset({"v4-16-1"})) == []
        world.sim.let_go("v4-16-2")
        assert [e.place for e in world.go() if isinstance(e, Reserved)] == ["v4-16-2"]

    def test_asked_again_with_less_to_avoid_takes_what_is_free(self) -> None:
        world = World(slices=1)
        assert world.reserve("a", avoid=frozenset({"v4-16-1"})) == []
        assert [type(e) for e in world.reserve("a")] == [Reserved]

    def test_a_head_is_placed_where_only_another_host_is_missing(self) -> None:
        world = World(slices=1)
        world.sim.kill_host("v4-16-1", 1)
        (reserved,) = world.reserve("a")
        world.sim.submit(Assemble("a", V4_16, "v4-16-1"))
        assert isinstance(reserved, Reserved)
        assert world.go() == []
        world.sim.restore_slice("v4-16-1")
        assert [type(e) for e in world.go()] == [Assembled, AgentUp, AgentUp]

    def test_a_lost_place_is_not_taken_until_its_machines_are_back(self) -> None:
        world = World(slices=1)
        world.sim.remove_slice("v4-16-1")
        assert world.reserve("a") == []
        world.sim.restore_slice("v4-16-1")
        assert [type(e) for e in world.go()] == [Reserved]

    def test_the_claims_of_a_dead_slice_move_to_other_places_until_released(self) -> None:
        world = World(slices=2)
        world.bring_up("a")
        world.sim.kill_host("v4-16-1", 0)
        world.go()
        assert world.sim.audit()["a"].places == ("v4-16-2", "v4-16-1")
        assert world.reserve("b") == []
        world.sim.submit(Release("a", 0.0, lost=True))
        assert Released("a") in world.go()
        assert world.sim.audit()["b"].places == ("v4-16-2",)

    def test_gpu_hosts_go_to_nodes_of_their_own(self) -> None:
        world = World(GpuSlice(2, 4), slices=2)
        (reserved,) = world.reserve("a")
        assert isinstance(reserved, Reserved)
        assert reserved.place is None
        assert len(set(reserved.nodes)) == 2
        world.sim.submit(Assemble("a", world.shape, None))
        assert [type(e) for e in world.go()] == [Assembled, AgentUp, AgentUp]
        (other,) = world.reserve("b", avoid=frozenset({reserved.nodes[0]}))
        assert isinstance(other, Reserved)
        assert not set(other.nodes) & set(reserved.nodes)

    def test_cpu_hosts_share_a_node_unless_spread(self) -> None:
        assert len(set(World(CpuSlice(3)).bring_up("a").nodes)) == 1
        assert len(set(World(CpuSlice(3, spread=True)).bring_up("a").nodes)) == 3

    def test_a_gpu_bundle_whose_node_dies_moves_and_that_is_told(self) -> None:
        world = World(GpuSlice(2), slices=2)
        before = world.bring_up("a").nodes
        world.sim.kill_host("gpu-rack-1", 1)
        (moved,) = [e for e in world.go() if isinstance(e, Assembled)]
        assert moved.nodes[0] == before[0]
        assert moved.nodes[1] not in before


class TestAgents:
    def test_answer_with_node_address_and_devices(self) -> None:
        world = World()
        world.bring_up("a")
        assert [(e.rank, e.node_id, e.devices) for e in world.told(AgentUp)] == [
            (rank, world.sim.node_id("v4-16-1", rank), 4) for rank in range(2)
        ]

    def test_beat_at_their_interval_and_once_after_a_pause(self) -> None:
        world = World(beat_s=1.0)
        world.bring_up("a")
        world.beats.clear()
        world.go(10.0)
        assert len(world.beats) == 20
        world.beats.clear()
        world.clock.advance(60.0)
        world.sim.poll()
        assert len(world.beats) == 2

    def test_of_a_frozen_host_fall_silent_and_nothing_else_is_told(self) -> None:
        world = World(beat_s=1.0)
        world.bring_up("a")
        world.sim.freeze_host("v4-16-1", 1)
        world.beats.clear()
        assert world.go(10.0) == []
        assert {rank for _, _, rank, _ in world.beats} == {0}
        world.sim.thaw_host("v4-16-1", 1)
        world.beats.clear()
        world.go(3.0)
        assert {rank for _, _, rank, _ in world.beats} == {0, 1}

    def test_tell_of_a_daemon_that_stands_still(self) -> None:
        world = World(beat_s=1.0)
        world.bring_up("a")
        world.sim.freeze_host("v4-16-1", 1, daemon_only=True)
        world.beats.clear()
        world.go(3.0)
        assert {(rank, ok) for _, _, rank, ok in world.beats} == {(0, True), (1, False)}

    def test_a_host_frozen_for_long_is_dead_in_the_node_table(self) -> None:
        world = World(frozen_death_s=20.0)
        world.bring_up("a")
        world.sim.freeze_host("v4-16-1", 1)
        world.go(10.0)
        world.sim.thaw_host("v4-16-1", 1)
        world.sim.freeze_host("v4-16-1", 1)
        world.go(18.0)
        assert world.nodes().nodes[world.sim.node_id("v4-16-1", 1)].alive
        world.go(5.0)
        assert not world.nodes().nodes[world.sim.node_id("v4-16-1", 1)].alive
        assert [(e.rank, e.reason) for e in world.told(HostLost)] == [(1, Reason.NODE_DIED)]

    def test_that_start_on_a_frozen_host_answer_when_it_thaws(self) -> None:
        world = World()
        world.sim.freeze_host("v4-16-2", 1)
        world.reserve("a", avoid=frozenset({"v4-16-1"}))
        world.sim.thaw_host("v4-16-2", 1)
        world.sim.submit(Assemble("a", V4_16, "v4-16-2"))
        world.go(0.2)
        world.sim.freeze_host("v4-16-2", 1)
        assert [e.rank for e in world.go() if isinstance(e, AgentUp)] == [0]
        world.sim.thaw_host("v4-16-2", 1)
        assert [e.rank for e in world.go() if isinstance(e, AgentUp)] == [1]

    def test_may_fail_or_see_too_few_devices(self) -> None:
        world = World()
        world.sim.break_agent("v4-16-1", 0, "no disk space")
        world.sim.set_devices("v4-16-1", 1, 3)
        world.bring_up("a")
        assert world.told(AgentFailed) == [AgentFailed("a", 0, "no disk space")]
        assert [e.devices for e in world.told(AgentUp)] == [3]


class TestLoss:
    def test_of_a_host_is_told_by_its_open_calls_and_then_by_the_node_table(self) -> None:
        world = World()
        world.bring_up("a")
        node = world.sim.node_id("v4-16-1", 1)
        world.sim.kill_host("v4-16-1", 1)
        (lost,) = world.go()
        assert isinstance(lost, HostLost)
        assert (lost.slice_id, lost.rank, lost.reason) == ("a", 1, Reason.NODE_DIED)
        assert not world.nodes().nodes[node].alive
        assert [node in e.changed for e in world.told(NodesSeen)].count(True) == 2

    def test_of_an_agent_leaves_its_node_alive(self) -> None:
        world = World()
        world.bring_up("a")
        world.sim.kill_agent("v4-16-1", 0)
        (lost,) = world.go()
        assert isinstance(lost, HostLost)
        assert lost.reason is Reason.AGENT_DIED
        assert all(node.alive for node in world.nodes().nodes.values())

    def test_a_host_that_comes_back_is_another_node_and_a_bundle_that_moved(self) -> None:
        world = World()
        before = world.bring_up("a")
        world.sim.kill_host("v4-16-1", 1)
        world.sim.restore_slice("v4-16-1")
        (moved,) = [e for e in world.go() if isinstance(e, Assembled)]
        assert moved.nodes[0] == before.nodes[0]
        assert moved.nodes[1] == world.sim.node_id("v4-16-1", 1)

    def test_a_bundle_can_be_said_to_have_moved(self) -> None:
        world = World()
        world.bring_up("a")
        world.sim.move_bundle("v4-16-1", 1, to="elsewhere")
        assert [e.nodes[1] for e in world.go() if isinstance(e, Assembled)] == ["elsewhere"]

    def test_notices_are_told_withdrawn_and_told_again_to_the_next_life(self) -> None:
        world = World(slices=1)
        world.bring_up("a")
        world.sim.notice("v4-16-1", 1, deadline_in_s=30.0)
        deadline = world.clock.epoch() + 30.0
        assert world.go() == [HostNoticed("a", 1, "gce", deadline)]
        world.sim.submit(Release("a", 0.0))
        world.bring_up("b")
        assert world.told(HostNoticed)[1:] == [HostNoticed("b", 1, "gce", deadline)]
        world.sim.withdraw_notice("v4-16-1", 1)
        world.sim.withdraw_notice("v4-16-1", 1)
        assert world.go() == [NoticeWithdrawn("b", 1, "gce")]


class TestNodeTable:
    def test_is_read_on_a_timer_and_shared_while_nothing_changes(self) -> None:
        world = World(nodes_every_s=2.0)
        world.go(10.0)
        reads = world.told(NodesSeen)
        assert 5 <= len(reads) <= 6
        assert len(reads[0].changed) == len(reads[0].nodes) == 4
        assert all(read.nodes is reads[0].nodes and not read.changed for read in reads[1:])

    def test_says_which_host_of_which_slice_a_node_is(self) -> None:
        world = World(slices=1)
        world.go(1.0)
        row = world.nodes().nodes[world.sim.node_id("v4-16-1", 1)]
        assert (row.place, row.worker_id, row.pod_type, row.alive) == ("v4-16-1", 1, "v4-16", True)

    def test_shows_nodes_that_drain(self) -> None:
        world = World()
        node = world.sim.node_id("v4-16-1", 0)
        world.sim.drain_node("v4-16-1", 0)
        world.go(2.0)
        assert world.nodes().nodes[node].drain_epoch_s == 0.0
        world.sim.drain_node("v4-16-1", 0, on=False)
        world.go(2.0)
        assert world.nodes().nodes[node].drain_epoch_s is None

    def test_dead_nodes_vanish_after_a_while(self) -> None:
        world = World(frozen_death_s=2.0)
        node = world.sim.node_id("v4-16-1", 0)
        world.sim.kill_host("v4-16-1", 0)
        world.sim.restore_slice("v4-16-1")
        world.go(3.0)
        assert node in world.nodes().nodes
        world.go(3.0)
        assert node not in world.nodes().nodes

    def test_cannot_be_read_while_observation_fails(self) -> None:
        world = World()
        world.go(1.0)
        world.sim.fail_observation()
        world.events.clear()
        world.sim.kill_host("v4-16-1", 0)
        told = world.go(5.0)
        assert {type(e) for e in told} == {ObservationFailed}
        world.sim.fail_observation(on=False)
        world.go(2.0)
        assert world.told(NodesSeen)[0].changed == {world.sim.node_id("v4-16-1", 0)}


class TestWork:
    def test_starts_works_and_returns_on_every_host(self) -> None:
        world = World(work_s=3.0)
        world.bring_up("a")
        world.launch("a", lambda: 42)
        assert [type(e) for e in world.go(2.0)] == [ProcessStarted] * 2
        ended = [e for e in world.go(2.0) if isinstance(e, ProcessEnded)]
        assert [(e.rank, e.outcome.kind) for e in ended] == [
            (0, OutcomeKind.RETURNED),
            (1, OutcomeKind.RETURNED),
        ]
        assert [e.outcome.load() for e in ended if e.outcome.load] == [42, 42]
        assert [e.rank for e in world.told(ProcessGone)] == [0, 1]

    def test_that_raises_gives_the_users_traceback(self) -> None:
        world = World()
        world.bring_up("a")

        def fail() -> None:
            raise KeyError("what was looked for")

        world.launch("a", fail)
        world.go(12.0)
        outcome = world.told(ProcessEnded)[0].outcome
        assert outcome.kind is OutcomeKind.RAISED
        assert "in fail" in outcome.traceback
        assert "sim/work" not in outcome.traceback
        assert outcome.detail == "KeyError: 'what was looked for'"

    def test_is_stopped_once_and_told_again_when_asked_again(self) -> None:
        world = World()
        world.bring_up("a")
        world.launch("a", lambda: 1)
        started = world.go(1.0)
        world.sim.submit(Stop("a", "run-1/1", 5.0))
        told = world.go(12.0)
        assert [e.outcome.kind for e in told if isinstance(e, ProcessEnded)] == ["stopped"] * 2
        assert len([e for e in told if isinstance(e, ProcessGone)]) == 2
        world.sim.submit(Stop("a", "run-1/1", 5.0))
        again = world.go(1.0)
        assert [type(e) for e in again] == [ProcessStarted, ProcessEnded, ProcessGone] * 2
        assert set(map(id, again)) <= set(map(id, told)) | set(map(id, started))

    def test_stopped_before_it_starts_never_starts(self) -> None:
        world = World()
        world.bring_up("a")
        world.sim.submit(Stop("a", "run-1/1", 5.0))
        assert [type(e) for e in world.go(1.0)] == [ProcessGone] * 2
        world.launch("a", lambda: 1)
        told = world.go(15.0)
        assert [type(e) for e in told] == [ProcessEnded] * 2 + [ProcessGone] * 2
        assert {e.outcome.kind for e in told if isinstance(e, ProcessEnded)} == {"stopped"}

    def test_launched_twice_runs_once(self) -> None:
        calls: list[int] = []
        world = World()
        world.bring_up("a")
        world.launch("a", lambda: calls.append(1))
        world.launch("a", lambda: calls.append(1))
        world.go(15.0)
        world.launch("a", lambda: calls.append(1))
        world.go(15.0)
        assert len(calls) == 2
        assert len({id(e.outcome) for e in world.told(ProcessEnded)}) == 2

    def test_is_lost_with_its_host_and_goes_on_elsewhere(self) -> None:
        world = World()
        world.bring_up("a")
        world.launch("a", lambda: 1)
        world.go(1.0)
        world.sim.kill_host("v4-16-1", 1)
        told = world.go(12.0)
        kinds = {e.rank: e.outcome.kind for e in told if isinstance(e, ProcessEnded)}
        assert kinds == {0: "returned", 1: "lost"}

    def test_on_a_frozen_host_does_not_end(self) -> None:
        world = World()
        world.bring_up("a")
        world.launch("a", lambda: 1)
        world.go(1.0)
        world.sim.freeze_host("v4-16-1", 1)
        world.sim.submit(Stop("a", "run-1/1", 1.0))
        assert [e.rank for e in world.go(12.0) if isinstance(e, ProcessGone)] == [0]
        world.sim.thaw_host("v4-16-1", 1)
        assert [e.rank for e in world.go(1.0) if isinstance(e, ProcessGone)] == [1]

    def test_without_hosts_is_an_effect_that_failed(self) -> None:
        world = World()
        world.launch("a", lambda: 1)
        (failed,) = world.go(1.0)
        assert isinstance(failed, EffectFailed)

    def test_knows_who_it_is_and_whether_it_should_stop(self) -> None:
        world = World()
        world.bring_up("a")

        def look() -> tuple[int, bool, float | None]:
            here = host_context()
            return here.rank, here.should_stop(), here.deadline

        world.launch("a", look)
        world.launch("a", look, key="run-1/2")
        world.go(1.0)
        world.sim.submit(Notify("a", "run-1/2", 7.0))
        world.go(12.0)
        found = [(e.attempt, e.outcome.load()) for e in world.told(ProcessEnded)]
        assert sorted(found) == [
            ("run-1/1", (0, False, None)),
            ("run-1/1", (1, False, None)),
            ("run-1/2", (0, True, 7.0)),
            ("run-1/2", (1, True, 7.0)),
        ]
        with pytest.raises(RuntimeError, match="no run"):
            host_context()

    def test_told_to_stop_goes_on_until_it_is_stopped(self) -> None:
        world = World()
        world.bring_up("a")
        world.launch("a", lambda: 1)
        world.go(1.0)
        world.sim.submit(Notify("a", "run-1/1", None))
        told = world.go(12.0)
        assert {e.outcome.kind for e in told if isinstance(e, ProcessEnded)} == {"returned"}


class TestRelease:
    def test_lets_work_end_then_removes_hosts_and_then_the_head(self) -> None:
        world = World(slices=1, stop_s=2.0, remove_s=1.0)
        world.bring_up("a")
        world.launch("a", lambda: 1)
        world.go(1.0)
        world.sim.submit(Release("a", 10.0))
        world.go(1.5)
        assert world.sim.audit()["a"].processes == 2
        world.go(1.0)
        assert world.sim.audit()["a"].groups == ("a/head", "a/hosts")
        assert world.sim.audit()["a"].processes == 0
        world.go(1.0)
        assert world.sim.audit()["a"].groups == ("a/head",)
        assert world.go(1.0) == [Released("a")]
        assert world.sim.reserved() == ()

    def test_of_a_lost_slice_removes_both_groups_at_once(self) -> None:
        world = World(remove_s=1.0)
        world.bring_up("a")
        world.sim.submit(Release("a", 0.0, lost=True))
        assert world.go(1.1) == [Released("a")]

    def test_of_what_never_was_is_told_at_once_and_again(self) -> None:
        world = World()
        world.sim.submit(Release("a", 0.0))
        world.sim.submit(Release("a", 0.0))
        assert world.go(0.1) == [Released("a")] * 2

    def test_undoes_a_reservation_that_waits(self) -> None:
        world = World(slices=0)
        world.reserve("a")
        world.sim.submit(Release("a", 0.0))
        assert world.go() == [Released("a")]
        world.sim.add_slice()
        assert world.go() == []

    def test_is_not_undone_by_what_was_asked_for_before(self) -> None:
        world = World()
        world.bring_up("a")
        world.sim.submit(Release("a", 0.0))
        world.go()
        world.sim.submit(Reserve("a", V4_16))
        world.sim.submit(Assemble("a", V4_16, "v4-16-1"))
        world.go()
        assert world.sim.audit() == {}
        world.sim.forget("a")

    def test_close_says_what_was_left_and_removes_it(self) -> None:
        world = World()
        world.bring_up("a")
        world.sim.close()
        world.sim.close()
        assert set(world.sim.left_at_close) == {"a"}
        assert world.sim.audit() == {}
        assert world.go() == []


class TestExplain:
    @staticmethod
    def codes(world: World, slice_id: str = "a", *avoid: str) -> dict[str, str]:
        world.sim.submit(Reserve(slice_id, world.shape, avoid))
        world.go()
        return {f.code: f.subject for f in world.sim.explain(slice_id, None, dict.fromkeys(avoid, "lost: it was"))}

    def test_no_such_pod_type(self) -> None:
        world = World()
        world.shape = TpuSlice("v4-8")
        assert self.codes(world) == {"no_such_pod_type": "v4-8"}

    def test_chips_held_names_the_group(self) -> None:
        world = World(slices=1)
        world.sim.hold("v4-16-1", by="job-7")
        assert self.codes(world) == {"chips_held": "job-7"}

    def test_chips_held_by_a_slice_of_ours(self) -> None:
        world = World(slices=1)
        world.bring_up("b")
        assert self.codes(world) == {"chips_held": "b/head"}

    def test_host_missing_names_the_worker_id(self) -> None:
        world = World(slices=1)
        world.sim.kill_host("v4-16-1", 1)
        assert self.codes(world) == {"host_missing": "v4-16-1/1"}

    def test_avoided(self) -> None:
        world = World(slices=1)
        assert self.codes(world, "a", "v4-16-1") == {"avoided": "v4-16-1"}

    def test_waiting(self) -> None:
        world = World(slices=1, place_s=60.0)
        assert self.codes(world) == {"waiting": ""}

    def test_nothing_is_missing_when_all_agents_answer(self) -> None:
        world = World()
        world.bring_up("a")
        assert self.codes(world) == {}


def test_a_taken_fleet_name_is_refused() -> None:
    sim = SimBackend(V4_16)
    sim.take_name("mine")
    with pytest.raises(FleetNameTakenError):
        sim.open(FleetIdentity("mine", "mine", "1", V4_16, Settings()), World())


def test_the_same_seed_tells_the_same_story() -> None:
    def story(seed: int) -> list[str]:
        world = World(seed=seed, jitter=0.5)
        for life in ("a", "b"):
            world.bring_up(life)
        world.sim.kill_host("v4-16-1", 0)
        world.go()
        return [repr(event) for event in world.events]

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_ten_thousand_idle_hosts_cost_little() -> None:
    """Little more than the beats themselves, whatever the machine does beside it: calls are counted, not time."""
    shape = GpuSlice(10)

    class Deaf:
        beats = 0

        def post(self, event: Event) -> None: ...

        def beat(self, slice_id: str, rank: int, *, raylet_ok: bool = True) -> None:
            self.beats += 1

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    calls = 0
    sink = Deaf()
    clock = FakeClock()
    sim = SimBackend(shape, 1000, clock=clock)
    sim.open(FleetIdentity(None, "test", "test-1", shape, Settings()), sink)
    for place in sim.places:
        sim.submit(Reserve(place, shape))
    clock.advance(5.0)
    for place in sim.places:
        sim.submit(Assemble(place, shape, None))
    clock.advance(5.0)
    sim.poll()
    before = sink.beats
    sys.setprofile(count)
    for _ in range(100):
        clock.advance(0.2)
        sim.poll()
    sys.setprofile(None)
    beats = sink.beats - before
    assert 90_000 < beats < 110_000
    assert calls < 2 * beats
