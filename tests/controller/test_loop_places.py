"""Where a fleet goes: to places that are whole, one slice a place, and back to a lost one when it is whole again."""

from collections.abc import Callable

import pytest

from sliceform.controller import GpuSlice, TpuSlice
from sliceform.controller.model.effects import Assemble
from sliceform.controller.model.events import HostLost
from sliceform.states.reasons import Reason

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py


def seen_for_long(world: "SimFleet") -> None:  # noqa: F821 - as above
    """Let the node table show what has been done to the cluster before the fleet looks at it."""
    world.clock.advance(100.0)


class TestWhole:
    @pytest.mark.parametrize("wanted", [1, 2])
    def test_places_are_taken_at_once_beside_half_ones(self, sim_fleet: Make, wanted: int) -> None:
        world = sim_fleet(wanted, ["half-a", "half-b", "c", "d"])
        world.sim.kill_host("half-a", 1)
        world.sim.kill_host("half-b", 1)
        seen_for_long(world)
        world.until(lambda: world.fleet.status().ready == wanted, within_s=3.0)
        assert world.changes("expire") == []

    def test_place_that_comes_free_takes_the_claim_off_a_half_one(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["half"])
        world.sim.kill_host("half", 1)
        seen_for_long(world)
        world.go(30.0)
        assert [(row.state, row.place) for row in world.rows()] == [("placed", "half")]
        world.sim.add_slice("whole")
        world.until(lambda: world.ids("ready") != [], within_s=5.0)
        (expire,) = world.changes("expire")
        assert (expire.reason, expire.key) == (Reason.PLACE_AVOIDED, "slice-1")
        assert expire.detail == "half is not whole: no living node has worker id 1"
        assert world.place("slice-2") == "whole"
        assert world.known.vacancies == []

    def test_claim_waits_for_hosts_that_join_one_after_the_other(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"])
        world.sim.kill_host("a", 1)
        seen_for_long(world)
        world.go(100.0)
        world.sim.restore_slice("a")
        world.until(lambda: world.ids("ready") == ["slice-1"], within_s=5.0)

    def test_a_half_place_is_given_back_when_its_hosts_do_not_come(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"])
        world.sim.kill_host("a", 1)
        seen_for_long(world)
        world.go(320.0, every=1.0)
        assert [(row.id, row.state) for row in world.rows()] == [("slice-2", "pending")]
        assert "host_missing" in world.fleet.why("slice-2").codes
        world.sim.restore_slice("a")
        world.until(lambda: world.ids("ready") == ["slice-2"], within_s=5.0)

    def test_no_claim_goes_to_a_slice_that_is_drained_in_part(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a", "b"])
        world.sim.drain_node("a", 1)
        world.ready()
        assert world.place("slice-1") == "b"

    def test_what_waits_follows_a_place_that_breaks(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, ["a", "b"])
        world.sim.hold("b")
        world.until(lambda: world.fleet.status().ready == 1)
        world.sim.kill_host("b", 1)
        world.go(2.0)
        world.sim.let_go("b")
        world.go(60.0)
        assert world.ids("pending") == ["slice-2"]
        world.sim.restore_slice("b")
        world.until(lambda: world.fleet.status().ready == 2, within_s=5.0)
        assert world.changes("expire") == []


class TestLost:
    def test_half_dead_place_is_not_taken_again_while_it_is_not_whole(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a", "b"], settings={"avoid_lost_s": 5.0}).ready()
        lost = world.place("slice-1")
        world.sim.kill_host(lost, 1)
        world.until(lambda: world.ids("ready") == ["slice-2"])
        world.fleet.scale(2)
        world.go(400.0, every=1.0)
        assert [(row.id, row.state) for row in world.rows()] == [("slice-2", "ready"), ("slice-3", "pending")]
        world.sim.add_slice("c")
        world.until(lambda: world.fleet.status().ready == 2, within_s=5.0)

    def test_place_whose_host_came_back_is_taken_within_two_reads_though_its_neighbour_never_died(
        self, sim_fleet: Make
    ) -> None:
        world = sim_fleet(1, ["a"], node_death_s=0.0).ready()
        world.sim.kill_host("a", 1)
        world.go(5.0)
        assert world.ids("pending") == ["slice-2"]
        world.sim.restore_slice("a")
        world.until(lambda: bool(world.row("slice-2").place), within_s=2.0 + world.sim.timings.place_s)
        world.ready()

    def test_place_is_not_taken_while_the_node_that_was_lost_is_listed_beside_the_new_one(
        self, sim_fleet: Make
    ) -> None:
        world = sim_fleet(1, ["a"], node_death_s=20.0).ready()
        world.sim.kill_host("a", 1)
        world.until(lambda: world.ids() == ["slice-2"])
        world.sim.restore_slice("a")
        world.go(10.0)
        assert world.fleet.places()["a"].state == "avoided"
        world.ready()

    def test_silent_host_keeps_its_place_avoided_and_no_neighbour(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, shape=GpuSlice(2, 4)).ready()
        world.sim.freeze_host("gpu-rack-1", 0)
        world.until(lambda: world.ids("ready") == ["slice-2"])
        assert list(world.fleet.status().avoided) == [world.sim.node_id("gpu-rack-1", 0)]

    @pytest.mark.parametrize("part", ["head", "hosts"])
    def test_group_that_somebody_removed_does_not_keep_anyone_from_its_place(self, sim_fleet: Make, part: str) -> None:
        world = sim_fleet(1, ["a"]).ready()
        world.sim.remove_group("a", part)
        # What ends with the group may be told in the same moment.
        world.sim._told.append(HostLost("slice-1", 1, Reason.AGENT_DIED, "its agent ended"))
        world.until(lambda: world.ids("ready") == ["slice-2"], within_s=5.0)
        assert not world.fleet.status().avoided

    def test_agents_that_end_beside_a_dead_node_keep_no_one_from_theirs(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, shape=GpuSlice(2, 4)).ready()
        node = world.rows()[0].hosts[0].node_id
        world.sim._told.append(HostLost("slice-1", 0, Reason.NODE_DIED, "its raylet refuses connections"))
        world.sim._told.append(HostLost("slice-1", 1, Reason.AGENT_DIED, "its agent ended"))
        world.step()
        assert list(world.fleet.status().avoided) == [node]

    def test_loop_wakes_when_a_place_may_be_used_again(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"], settings={"avoid_lost_s": 0.5}).ready()
        world.sim.notice("a", 0)
        assert world.fleet.step() <= 0.5
        world.sim.withdraw_notice("a", 0)
        world.until(lambda: world.ids("ready") == ["slice-2"], within_s=3.0)

    def test_node_that_is_avoided_for_less_than_a_tick_is_taken_again_at_once(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"], shape=GpuSlice(2, 4), settings={"avoid_lost_s": 0.0}).ready()
        world.sim.notice("a", 0)
        world.step()
        world.sim.withdraw_notice("a", 0)
        world.until(lambda: world.ids("ready") == ["slice-2"], within_s=3.0)


class TestOneLifeAPlace:
    def test_second_node_with_a_worker_id_lets_nobody_else_in(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"]).ready()
        world.sim.add_double("a", 0)
        world.go(2.0)
        world.fleet.scale(2)
        world.go(20.0)
        assert [(row.id, row.state) for row in world.rows()] == [("slice-1", "ready"), ("slice-2", "pending")]
        assert world.fleet.places()["a"].detail.startswith("2 nodes say that they are worker 0")

    def test_claim_that_was_there_first_loses(self, sim_fleet: Make) -> None:
        """The second node joins while a reservation waits, and the cluster places that there before anybody looks."""
        world = sim_fleet(2, ["a"])
        world.until(lambda: world.fleet.status().ready == 1)
        world.sim.add_double("a", 0)
        world.until(lambda: world.changes("expire") != [])
        (expire,) = world.changes("expire")
        assert (expire.key, expire.reason) == ("slice-2", Reason.PLACE_AVOIDED)
        world.go(20.0)
        assert [row.state for row in world.rows()] == ["ready", "pending"]
        assert len(world.changes("expire")) <= 2, "at most one more until the node table has been read"

    def test_double_is_used_by_nobody(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"])
        world.sim.add_double("a", 1)
        world.go(20.0)
        assert world.ids("ready") == []
        assert "place_unfit" in world.fleet.why().codes
        world.sim.add_slice("b")
        world.ready()


class TestHardware:
    def test_that_is_not_what_the_shape_says_is_not_used_and_told(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"])
        world.sim.relabel("a", 1, topology="2x4x1")
        world.go(10.0)
        assert world.ids("pending") == world.ids()
        assert "has topology 2x4x1, the shape asks 2x2x2" in str(world.fleet.why())
        world.sim.relabel("a", 1, topology="2x2x2")
        world.until(lambda: world.fleet.status().ready == 1, within_s=5.0)

    def test_hosts_with_fewer_chips_are_told(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"])
        world.sim.relabel("a", 1, resources={"TPU": 2.0, "CPU": 4.0})
        world.go(10.0)
        assert "worker 1 has 2 TPU, the shape asks 4 TPU" in str(world.fleet.why())

    def test_chips_counted_twice_are_reserved_whole(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a"])
        for worker_id in (0, 1):
            world.sim.relabel("a", worker_id, resources={"TPU": 8.0, "CPU": 4.0})
        asked = []
        submit = world.faulty.inner.submit
        world.faulty.inner.submit = lambda request: (asked.append(request), submit(request))
        world.ready()
        assert [request.units for request in asked if isinstance(request, Assemble)] == [2]

    def test_a_gang_has_one_kind_of_gpu(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 2, shape=GpuSlice(2, 8), whim=1.0)
        for place in world.sim.places:
            for worker_id, kind in enumerate(("A100", "H100")):
                world.sim.relabel(place, worker_id, accelerator=kind)
        world.ready()
        nodes = world.fleet._ledger.fleet.nodes
        kinds = {frozenset(nodes[host.node_id].accelerator for host in row.hosts) for row in world.rows()}
        assert kinds == {frozenset({"A100"}), frozenset({"H100"})}
        assert world.changes("expire") == []

    def test_a_gang_is_of_a_kind_of_which_there_are_enough(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a", "b"], shape=GpuSlice(2, 8))
        for place, worker_id, kind in (("a", 0, "A100"), ("a", 1, "H100"), ("b", 0, "H100"), ("b", 1, "H100")):
            world.sim.relabel(place, worker_id, accelerator=kind)
        world.until(lambda: world.fleet.status().ready == 1, within_s=5.0)
        assert world.sim.node_id("a", 0) not in {host.node_id for host in world.rows()[0].hosts}

    def test_a_gang_that_was_placed_on_several_kinds_goes_back(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=GpuSlice(2, 8))
        world.step()
        world.sim.relabel("gpu-rack-1", 0, accelerator="A100")
        world.sim.relabel("gpu-rack-1", 1, accelerator="H100")
        world.step(1.0)
        world.step(1.0)
        (expire,) = world.changes("expire")
        assert expire.detail == "its nodes have different accelerators: A100, H100"

    def test_a_gang_whose_kind_somebody_else_has_tries_the_other(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, ["a", "b"], shape=GpuSlice(2, 8))
        for place, kind in (("a", "A100"), ("b", "H100")):
            for worker_id in (0, 1):
                world.sim.relabel(place, worker_id, accelerator=kind)
        world.sim.hold("a")
        world.ready()
        assert {host.node_id for host in world.rows()[0].hosts} == {world.sim.node_id("b", n) for n in (0, 1)}


class TestQuarantine:
    def test_counts_against_the_host_that_failed_and_no_neighbour(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=GpuSlice(4, 8), settings={"quarantine_after": 2})
        world.sim.add_slice("extra", shape=GpuSlice(1, 8))
        world.sim.break_agent("gpu-rack-1", 2)
        world.ready()
        quarantined = {note.detail.split()[0] for note in world.notes(Reason.QUARANTINED)}
        assert quarantined <= {world.sim.node_id("gpu-rack-1", 2)}

    def test_counts_against_the_host_that_answered_wrongly_and_none_that_is_slow(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=GpuSlice(4, 8), settings={"quarantine_after": 2})
        world.sim.set_devices("gpu-rack-1", 2, 3)
        world.until(lambda: bool(world.fleet.status().avoided))
        assert set(world.fleet.status().avoided) == {world.sim.node_id("gpu-rack-1", 2)}

    def test_failures_a_week_apart_are_none_too_many(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, settings={"quarantine_s": 50.0, "quarantine_after": 2}).ready()
        for _ in range(4):
            world.sim.kill_agent(world.sim.places[0], 0)
            world.go(60.0)
        assert world.notes(Reason.QUARANTINED) == []

    def test_only_place_is_tried_again_soon_after_it_was_mended(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1)
        (place,) = world.sim.places
        world.sim.break_agent(place, 0)
        world.go(60.0)
        assert world.fleet.places()[place].state == "quarantined"
        world.sim.break_agent(place, 0, None)
        world.until(lambda: world.fleet.status().ready == 1, within_s=30.0)

    def test_only_place_that_stays_broken_is_tried_ever_more_rarely(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1)
        world.sim.break_agent(world.sim.places[0], 0)
        world.go(1800.0, every=5.0)
        assert len(world.changes("create")) < 12

    def test_is_forgotten_with_the_node(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1)
        (place,) = world.sim.places
        world.sim.break_agent(place, 0)
        world.until(lambda: bool(world.fleet.status().avoided))
        world.sim.kill_host(place, 0)
        world.sim.restore_slice(place)
        world.until(lambda: world.fleet.status().ready == 1, within_s=15.0)


def test_places_are_a_value_that_prints_as_a_table(sim_fleet: Make) -> None:
    world = sim_fleet(1, ["a", "b", "c"])
    world.sim.kill_host("a", 1)
    seen_for_long(world)
    world.ready()
    places = world.fleet.places()
    assert [(place.name, place.state, place.slices) for place in places] == [
        ("a", "incomplete", ()),
        ("b", "held", ("slice-1",)),
        ("c", "whole", ()),
    ]
    assert len(places) == 3
    assert places["b"].nodes == (world.sim.node_id("b", 0), world.sim.node_id("b", 1))
    with pytest.raises(KeyError):
        places["d"]
    assert str(places).splitlines() == [
        "a  incomplete   1 nodes  no living node has worker id 1",
        "b  held         2 nodes  slice-1",
        "c  whole        2 nodes",
    ]


def test_places_of_gpu_slices_are_nodes(sim_fleet: Make) -> None:
    world = sim_fleet(1, 2, shape=GpuSlice(2, 4)).ready()
    states = {place.name: (place.state, place.slices) for place in world.fleet.places()}
    assert list(states.values()).count(("held", ("slice-1",))) == 2
    assert list(states.values()).count(("whole", ())) == 2


def test_nothing_is_reserved_before_the_node_table_has_been_read(sim_fleet: Make) -> None:
    world = sim_fleet(1, 1)
    world.sim.fail_observation()
    world.go(5.0)
    assert world.rows() == []
    world.sim.fail_observation(on=False)
    world.ready()
    assert TpuSlice("v4-16") == world.shape
