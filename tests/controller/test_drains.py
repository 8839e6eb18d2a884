"""What a drain does to the run that uses the slice: it charges nothing, and every later command is heeded."""

from collections.abc import Callable
from typing import Any

import pytest

from sliceform.controller import host_context
from sliceform.controller.api.run import Run
from sliceform.states.reasons import Reason

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py
World = Any


def at_work(sim_fleet: Make, *, places: int = 3, **options: Any) -> tuple[World, Run]:
    """Return a fleet of two slices with a run that no drain may be charged to."""
    world = sim_fleet(2, places, work_s=1e5, **options).ready()
    run = world.fleet.options(max_preemptions=0).submit(int)
    world.until(lambda: len(world.rows("running")) == 2)
    return world, run


def charges_nothing(world: World, run: Run) -> None:
    world.until(lambda: len(run.attempts) == 2, within_s=90.0)
    assert (run.attempts[0].outcome, run.attempts[0].detail) == ("superseded", "slice-1: drained")
    assert (run.status().preemptions, run.status().failures) == (0, 0)


class TestChargesNothing:
    @pytest.mark.parametrize("every", [0.05, 0.25, 1.0, 5.0])
    def test_however_soon_its_release_is_seen(self, sim_fleet: Make, every: float) -> None:
        world, run = at_work(sim_fleet)
        world.go(10.0)
        world.fleet.drain("slice-1", deadline_s=0.0)
        world.go(20.0, every)
        charges_nothing(world, run)

    def test_when_only_some_of_its_hosts_have_started(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, work_s=1e5, launch_s=5.0, jitter=0.5).ready()
        run = world.fleet.options(max_preemptions=0).submit(int)
        world.until(lambda: "running" in {host.state for host in world.row("slice-1").hosts})
        assert "ready" in {host.state for row in world.rows() for host in row.hosts}
        world.fleet.drain("slice-1", deadline_s=0.0)
        charges_nothing(world, run)

    @pytest.mark.parametrize("meanwhile", ["kill_host", "kill_agent", "notice"])
    def test_whatever_befalls_the_slice_meanwhile(self, sim_fleet: Make, meanwhile: str) -> None:
        world, run = at_work(sim_fleet, stop_s=30.0)
        place = world.place("slice-1")
        world.fleet.drain("slice-1", deadline_s=20.0)
        world.go(2.0)
        getattr(world.sim, meanwhile)(place, 1)
        charges_nothing(world, run)

    def test_nor_do_the_ends_that_follow_it(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, work_s=20.0).ready()
        run = world.fleet.options(max_preemptions=0).submit(lambda: 1 / int(not host_context().should_stop()))
        world.until(lambda: len(world.rows("running")) == 2)
        world.fleet.drain("slice-1", deadline_s=60.0)
        charges_nothing(world, run)
        assert "raised" in run.attempts[0].hosts

    def test_a_preemption_that_came_first_stays_one(self, sim_fleet: Make) -> None:
        world, run = at_work(sim_fleet, stop_s=30.0)
        world.sim.notice(world.place("slice-1"), 0, deadline_in_s=20.0)
        world.step()
        world.fleet.drain("slice-1", deadline_s=0.0)
        world.over(run)
        assert run.attempts[0].outcome == "preempted"

    def test_a_failure_that_came_first_stays_one(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, work_s=5.0, gone_s=5.0).ready()
        run = world.fleet.submit(lambda: 1 / 0)
        world.until(lambda: any(run.attempts[0].hosts) if run.attempts else False)
        world.fleet.drain("slice-2", deadline_s=0.0)
        world.over(run)
        assert run.status().state == "failed"


class TestHeedsLaterCommands:
    """Work that does not look at `should_stop()` on a slice with an hour left."""

    @pytest.fixture
    def drained(self, sim_fleet: Make) -> tuple[World, Run]:
        world, run = at_work(sim_fleet, places=4, stop_s=1e5)
        world.fleet.drain("slice-1", deadline_s=3600.0)
        world.go(5.0)
        assert world.row("slice-1").state == "draining"
        return world, run

    def gone(self, world: World) -> bool:
        return "slice-1" not in world.ids()

    def test_a_shorter_drain(self, drained: tuple[World, Run]) -> None:
        world, _ = drained
        world.fleet.drain("slice-1", deadline_s=7000.0)
        world.fleet.drain("slice-1", deadline_s=10.0)
        world.go(9.0)
        assert not self.gone(world)
        world.until(lambda: self.gone(world), within_s=4.0)
        assert [change.key for change in world.notes(Reason.HURRIED)] == ["slice-1"]

    def test_a_cancel(self, drained: tuple[World, Run]) -> None:
        world, run = drained
        run.cancel(grace_s=50.0)
        world.step()
        run.cancel(grace_s=5.0)
        world.go(4.0)
        assert not run.done()
        world.over(run, within_s=4.0)
        assert run.record.ended == "cancelled"

    def test_close(self, drained: tuple[World, Run]) -> None:
        world, _ = drained
        begun = world.clock.monotonic()
        world.fleet.close(grace_s=0.0)
        assert world.clock.monotonic() - begun < 5.0
        assert world.sim.left_at_close == {}

    def test_the_end_of_its_attempt_for_another_reason(self, drained: tuple[World, Run]) -> None:
        """Nothing is left to save for on slice-1 once another slice of its attempt is lost."""
        world, run = drained
        world.sim.kill_host(world.place("slice-2"), 0)
        world.until(lambda: self.gone(world), within_s=10.0)
        world.over(run, within_s=10.0)
        assert run.attempts[0].outcome == "preempted"

    def test_a_drain_of_a_slice_that_has_notice(self, sim_fleet: Make) -> None:
        world, _ = at_work(sim_fleet, places=4, stop_s=1e5)
        world.sim.notice(world.place("slice-1"), 0, deadline_in_s=3600.0)
        world.go(2.0)
        world.fleet.drain("slice-1", deadline_s=5.0)
        world.go(4.0)
        assert not self.gone(world)
        world.until(lambda: self.gone(world), within_s=4.0)
