"""The loop on a simulated cluster: what a fleet does when the world, the network or the driver misbehaves."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from sliceform.controller.model.events import (
    AgentUp,
    Assembled,
    HostLost,
    HostNoticed,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Released,
    Reserved,
)
from sliceform.controller.model.shapes import GpuSlice
from sliceform.states import replay
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py


class TestConvergence:
    def test_a_fleet_comes_up_and_then_needs_nothing(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3).ready()
        world.go(2.0)
        assert world.fleet.plan() == ()
        seq = world.fleet.history.last_seq
        world.go(30.0)
        assert world.fleet.history.last_seq == seq
        assert world.fleet.status().effects_in_flight == 0
        assert replay(world.fleet.history) == ()

    def test_growing_and_shrinking_leaves_the_others_alone(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 4).ready()
        first = [(row.id, row.place, [host.node_id for host in row.hosts]) for row in world.rows()]
        world.fleet.scale(4)
        world.ready(4)
        world.fleet.scale(2)
        world.until(lambda: len(world.rows()) == 2)
        assert [(row.id, row.place, [host.node_id for host in row.hosts]) for row in world.rows()] == first
        assert [change.key for change in world.changes("drain")] == ["slice-4", "slice-3"]
        assert {change.reason for change in world.changes("drain")} == {Reason.SCALE_DOWN}

    def test_sizes_are_reached_as_far_as_they_go_and_grow_with_the_cluster(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 3, settings={"surplus_s": 20.0})
        assert world.fleet.wait_ready().size == 2
        world.ready(3)
        world.until(lambda: world.ids() == ["slice-1", "slice-2"])
        assert "pauses" in world.fleet.status().waits_for
        assert {change.reason for change in world.changes("drain")} == {Reason.SURPLUS}
        world.sim.add_slice()
        world.until(lambda: world.fleet.status().size == 4, within_s=10.0)


class TestLoss:
    def test_is_replaced_elsewhere_and_the_other_slices_do_not_notice(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3).ready()
        lost, kept = world.place("slice-1"), world.row("slice-2")
        world.sim.kill_host(lost, 1)
        world.until(lambda: "slice-3" in world.ids("ready"))
        row = world.row("slice-3")
        assert (row.replaces, row.place != lost) == ("slice-1", True)
        assert world.row("slice-2") == kept
        (preempt,) = world.changes("preempt", "slice-1")
        assert (preempt.reason, preempt.cause) == (Reason.NODE_DIED, "slice-1/1")
        ticks = {change.tick for change in world.history if change.trigger == "preempt"}
        assert len(ticks) == 1, "all hosts follow in the same tick"

    def test_of_the_only_place_waits_until_its_old_nodes_are_dead_and_takes_it_again(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, node_death_s=5.0).ready()
        place = world.place("slice-1")
        world.sim.remove_slice(place)
        world.sim.restore_slice(place)
        world.go(3.0)
        assert world.fleet.status().avoided == {place: "lost: slice-1: node_died"}
        assert "avoided" in world.fleet.why("slice-2").codes
        world.until(lambda: world.ids("ready") == ["slice-2"], within_s=15.0)
        assert world.fleet.status().avoided == {}

    def test_a_place_whose_nodes_never_show_dead_is_used_again_after_a_while(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, settings={"avoid_lost_s": 20.0}).ready()
        place = world.place("slice-1")
        world.sim.freeze_host(place, 0)
        world.until(lambda: world.ids() == ["slice-2"])
        world.sim.thaw_host(place, 0)
        world.go(15.0)
        assert world.ids("ready") == []
        world.ready()

    def test_of_an_agent_on_a_living_node_does_not_keep_away_from_the_place(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        world.sim.kill_agent(world.place("slice-1"), 0)
        world.until(lambda: world.ids("ready") == ["slice-2"], within_s=10.0)
        assert world.changes("preempt", "slice-1")[0].reason == Reason.AGENT_DIED

    def test_of_agents_again_and_again_quarantines_the_place(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, settings={"quarantine_after": 2, "quarantine_s": 60.0}).ready()
        place = world.place("slice-1")
        for number in (1, 2):
            world.ready()
            world.sim.kill_agent(place, 0)
            world.until(lambda number=number: world.changes("preempt", f"slice-{number}") != [])
        assert "quarantined" in world.fleet.status().avoided[place]

    def test_by_silence_does_not_count_time_that_ended_with_a_failed_look(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2).ready()
        world.sim.freeze_host(world.place("slice-1"), 0)
        world.until(lambda: world.known.lives["slice-1"].due - world.known.now < 1.0)
        world.sim.fail_observation(on=True)
        world.step(2.0)
        assert world.fleet.status().blind
        assert world.changes("preempt") == []

    def test_of_a_gang_of_gpus_too(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, shape=GpuSlice(2, 4)).ready()
        world.sim.kill_host("gpu-rack-1", 0)
        world.until(lambda: "slice-3" in world.ids("ready"))
        assert world.row("slice-3").replaces == "slice-1"

    def test_of_a_bundle_that_moved_is_never_a_recovery(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2).ready()
        world.sim.move_bundle(world.place("slice-1"), 1)
        world.step()
        world.ready()
        assert [change.reason for change in world.changes("preempt")] == [Reason.GROUP_LOST]


class TestNotReady:
    @pytest.mark.parametrize("fault", ["devices", "agent"])
    def test_a_place_that_keeps_failing_is_quarantined(self, sim_fleet: Make, fault: str) -> None:
        world = sim_fleet(1, 1, settings={"quarantine_after": 2})
        place = world.sim.places[0]
        if fault == "devices":
            world.sim.set_devices(place, 1, 3)
        else:
            world.sim.break_agent(place, 1)
        world.until(lambda: bool(world.fleet.status().avoided))
        world.sim.add_slice()
        world.ready()
        reasons = [change.reason for change in world.changes("expire")]
        assert reasons == [Reason.WRONG_DEVICES if fault == "devices" else Reason.AGENT_FAILED] * 2
        assert len(world.notes(Reason.QUARANTINED)) == 1
        assert world.fleet.status().avoided[place].startswith("quarantined")
        assert world.place(world.ids("ready")[0]) == world.sim.places[1]
        assert world.rows()[0].replaces == "slice-2"

    def test_refusals_back_off_longer_every_time(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1)
        world.faulty.inject(refuse_place=1.0)
        world.go(60.0)
        times = [change.at for change in world.changes("create")]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert len(gaps) >= 4
        assert gaps[-1] > 2 * gaps[0]
        assert "backs off" in world.fleet.status().waits_for or world.ids()
        world.faulty.heal()
        world.ready()

    def test_a_reservation_has_its_time(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 0, settings={"pending_s": 20.0})
        world.go(22.0)
        assert [change.reason for change in world.changes("expire")] == [Reason.BUDGET_SPENT]
        world.sim.add_slice()
        world.ready()

    def test_an_effect_that_fails_is_noted_and_tried_again(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1)
        world.faulty.inject(refuse=1.0)
        world.go(4.0)
        assert len(world.notes(Reason.EFFECT_FAILED)) >= 2
        world.faulty.heal()
        world.ready()
        assert len(world.changes("create")) == 1

    def test_an_attempt_that_cannot_begin_says_what_keeps_it(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        world.faulty.inject(refuse=1.0)
        run = world.fleet.submit(int)
        world.go(4.0)
        said = r"has not begun on slice-1 after \d+ failed tries: failed by an injected fault$"
        assert re.search(said, run.status().detail)
        assert "failed by an injected fault" in str(world.fleet.why(run.id))
        world.faulty.heal()
        world.over(run)


class TestSilence:
    def test_of_one_host_is_the_loss_of_its_slice(self, sim_fleet: Make) -> None:
        world = sim_fleet(3, 4).ready()
        world.sim.freeze_host(world.place("slice-2"), 1)
        world.go(9.0)
        assert world.changes("preempt") == []
        world.go(4.0)
        (change,) = world.changes("preempt")
        assert (change.key, change.reason, change.cause) == ("slice-2", Reason.SILENT, "slice-2/1")

    def test_of_a_daemon_alone_counts_though_its_agent_beats(self, sim_fleet: Make) -> None:
        world = sim_fleet(3, 4).ready()
        world.sim.freeze_host(world.place("slice-2"), 0, daemon_only=True)
        world.go(14.0)
        assert [change.key for change in world.changes("preempt")] == ["slice-2"]

    @pytest.mark.parametrize("slices", [2, 3])
    def test_of_more_than_half_together_counts_for_nothing_until_the_node_table_agrees(
        self, sim_fleet: Make, slices: int
    ) -> None:
        world = sim_fleet(slices, 6, frozen_death_s=40.0).ready()
        frozen = ["slice-1", "slice-2"]
        for slice_id in frozen:
            world.sim.freeze_host(world.place(slice_id), 0)
        world.go(35.0)
        assert world.changes("preempt") == []
        world.go(10.0)
        assert [change.key for change in world.changes("preempt")] == frozen
        assert {change.reason for change in world.changes("preempt")} <= {Reason.NODE_DIED, Reason.SILENT}

    def test_of_half_of_them_counts(self, sim_fleet: Make) -> None:
        world = sim_fleet(4, 8).ready()
        for slice_id in ("slice-1", "slice-2"):
            world.sim.freeze_host(world.place(slice_id), 0)
        world.go(14.0)
        assert [change.key for change in world.changes("preempt")] == ["slice-1", "slice-2"]


class TestNobodyLooked:
    def test_a_paused_driver_finds_its_fleet_untouched(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3).ready()
        before = world.rows()
        for _ in range(5):
            world.step(30.0)
        world.go(5.0)
        assert world.rows() == before

    def test_a_blind_controller_takes_nothing_away_and_counts_no_time(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 1, settings={"pending_s": 30.0}).ready(1)
        world.sim.fail_observation()
        world.go(2.0)
        assert world.fleet.status().blind
        assert "cannot be observed" in str(world.fleet.why())
        world.fleet.scale(1)
        now = world.known.now
        world.sim.freeze_host(world.place("slice-1"), 0)
        world.go(60.0)
        assert world.known.now == now
        assert world.ids() == ["slice-1", "slice-2"]
        world.sim.thaw_host(world.place("slice-1"), 0)
        world.sim.fail_observation(on=False)
        world.go(5.0)
        assert world.ids() == ["slice-1"]
        assert world.changes("preempt") == []

    def test_a_node_table_that_nobody_reads_is_a_failed_observation(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        world.sim._nodes_every_s = 1e9
        world.sim._next_read = 1e9
        world.go(12.0, every=1.0)
        assert "was not read" in world.fleet.status().blind

    def test_loop_time_is_fair(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        before = world.known.now
        world.step(3600.0)
        assert world.known.now - before <= 2.0


class TestNotice:
    def test_tells_the_work_on_all_slices_and_drains_when_it_is_gone(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, work_s=1e6).ready()
        world.fleet.submit(int)
        world.until(lambda: len(world.rows("running")) == 2)
        world.go(1.0)
        deadline = world.clock.epoch() + 20.0
        world.sim.notice(world.place("slice-1"), 0, deadline_in_s=20.0)
        world.step()
        assert (world.row("slice-1").state, world.row("slice-2").state) == ("preempted", "running")
        assert world.row("slice-3").replaces == "slice-1"
        processes = [p for life in world.sim._engine.lives.values() for p in life.processes.values()]
        assert len(processes) == 4
        assert all(p.told_to_stop and p.deadline_epoch_s == deadline for p in processes)
        world.until(lambda: "slice-1" not in world.ids())
        (drain,) = world.changes("drain", "slice-1")
        assert deadline - 1.0 <= drain.at <= deadline + 1.0

    def test_of_an_idle_slice_gives_it_back_at_once(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2).ready()
        world.sim.notice(world.place("slice-1"), 0, deadline_in_s=100.0)
        world.step()
        (drain,) = world.changes("drain")
        assert drain.reason == Reason.WORK_GONE

    def test_that_is_repeated_brought_forward_or_withdrawn_is_noted(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, work_s=1e6).ready()
        world.fleet.submit(int)
        world.until(lambda: bool(world.rows("running")))
        place = world.place("slice-1")
        world.sim.notice(place, 0, deadline_in_s=100.0)
        world.step()
        world.sim.notice(place, 1, deadline_in_s=50.0, source="own")
        world.step()
        assert len(world.notes(Reason.NOTICE_MERGED)) == 1
        world.sim.withdraw_notice(place, 0)
        world.sim.withdraw_notice(place, 1, source="own")
        world.step()
        assert len(world.notes(Reason.NOTICE_WITHDRAWN)) == 1
        assert world.row("slice-1").state == "preempted"

    def test_then_loss_gives_it_up_before_its_deadline(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, work_s=1e6).ready()
        world.fleet.submit(int)
        world.until(lambda: bool(world.rows("running")))
        place = world.place("slice-1")
        world.sim.notice(place, 0, deadline_in_s=100.0)
        world.step()
        world.sim.kill_host(place, 0)
        world.go(1.0)
        assert len(world.notes(Reason.LOST_AFTER_NOTICE)) == 1
        assert world.changes("drain")[0].reason == Reason.LOST

    def test_from_the_node_table_counts_the_same(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2).ready()
        world.sim.drain_node(world.place("slice-1"), 1, deadline_in_s=10.0)
        world.go(2.0)
        assert [change.reason for change in world.changes("preempt")] == [Reason.PREEMPTION_NOTICE]


class TestAnswers:
    def test_for_lives_that_are_gone_are_dropped(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2).ready()
        world.fleet.drain("slice-1", 0.0)
        world.until(lambda: world.ids("ready") == ["slice-2"])
        seq = world.fleet.history.last_seq
        for event in (
            Reserved("slice-1", "a", ("n",)),
            Assembled("slice-1", ("n", "m")),
            AgentUp("slice-1", 0, "n", "ip", 4),
            HostLost("slice-1", 0, Reason.NODE_DIED, ""),
            HostNoticed("slice-1", 0, "gce", None),
            ProcessStarted("slice-1", 0, "run-1/1"),
            ProcessEnded("slice-1", 0, "run-1/1", Outcome(OutcomeKind.RETURNED)),
            ProcessGone("slice-1", 0, "run-1/1"),
            Released("slice-1"),
        ):
            world.fleet._loop.post(event)
        world.fleet._loop.beat("slice-1", 0)
        world.go(2.0)
        assert world.fleet.history.last_seq == seq

    @pytest.mark.parametrize("fault", ["repeat", "repeat_request", "delay", "lose", "drop_request", "refuse_but_do"])
    def test_that_come_twice_late_or_never_make_no_difference_in_the_end(self, sim_fleet: Make, fault: str) -> None:
        world = sim_fleet(2, 4)
        world.faulty.inject(**{fault: 0.4})
        world.ready()
        world.sim.kill_host(world.place(world.ids("ready")[0]), 0)
        world.go(10.0)
        world.faulty.heal()
        world.until(lambda: world.fleet.status().counts == {"ready": 2}, within_s=400.0)
        assert replay(world.fleet.history) == ()


class TestDrain:
    def test_by_an_operator_gives_the_work_its_time_and_is_replaced(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, work_s=1e6, stop_s=4.0).ready()
        run = world.fleet.submit(int)
        world.until(lambda: bool(world.rows("running")))
        world.fleet.drain("slice-1", deadline_s=8.0)
        world.step()
        assert world.row("slice-1").state == "draining"
        assert world.row("slice-2").replaces == "slice-1"
        world.go(3.0)
        assert "slice-1" in world.ids()
        world.until(lambda: run.attempts[0].outcome is not None)
        assert run.attempts[0].outcome == "superseded"
        assert (run.status().preemptions, run.status().failures) == (0, 0)
        world.until(lambda: len(run.attempts) == 2)
        run.cancel(0.0)

    def test_that_does_not_end_is_reported_as_stuck_once(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, remove_s=300.0, settings={"release_stuck_s": 20.0}).ready()
        world.fleet.drain("slice-1", 0.0)
        world.go(60.0)
        (note,) = world.notes(Reason.STUCK)
        assert note.key == "slice-1"
        assert "still not seen removed" in note.detail
        assert world.fleet._ledger.outbox.get("slice-1", Effect.RELEASE) is not None
        world.sim._timeline.timings = replace(world.sim.timings, remove_s=0.1)
        world.until(lambda: "slice-1" not in world.ids(), within_s=700.0)
