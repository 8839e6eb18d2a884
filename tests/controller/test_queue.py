"""The number of slices, the queue and the limits of runs, on a simulated cluster over long times."""

from collections.abc import Callable
from typing import Any

import pytest

from sliceform.controller import ConfigurationError, RunCancelled, TpuSlice
from sliceform.controller.model.effects import EffectRequest, Reserve
from sliceform.controller.model.events import Refused
from sliceform.controller.model.orders import Close
from sliceform.controller.testing import SimBackend
from sliceform.states.reasons import Reason

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py

#: One host a slice.
SMALL = TpuSlice("v4-8")
FOR_EVER = 1e7


def count(world: Any, state: str) -> int:
    return world.fleet.status().counts.get(state, 0)


def sizes(run: Any) -> list[int]:
    return [len(attempt.slices) for attempt in run.attempts]


def about_to_grow(sim_fleet: Make) -> tuple[Any, Any]:
    """Return a world, and its only run, which is stopping on two slices to go on on four."""
    world = sim_fleet([2, 4], 2, shape=SMALL, work_s=FOR_EVER, stop_s=FOR_EVER).ready(2)
    run = world.fleet.submit(int)
    world.go(60, 1.0)
    world.sim.add_slice("more-1")
    world.sim.add_slice("more-2")
    world.until(lambda: bool(world.told(Reason.ATTEMPT_SUPERSEDED)), 700)
    return world, run


class TestCapacity:
    def test_a_loss_is_replaced_at_once_though_growth_pauses(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4, 8], list("abcde"), shape=SMALL, work_s=FOR_EVER).ready(5)
        run = world.fleet.submit(int)
        world.go(400, 1.0)
        assert world.known.pause.until > world.known.now
        assert (count(world, "running"), len(world.rows())) == (4, 4)
        lost = world.ids("running")[1]
        world.sim.kill_host(world.place(lost), 0)
        world.until(lambda: bool(world.changes("preempt", lost)), 5)
        made = [change for change in world.changes("create") if change.cause == lost]
        assert [change.tick for change in made] == [world.changes("preempt", lost)[0].tick]
        world.go(20, 1.0)
        assert sizes(run) == [4, 4]

    def test_what_is_left_of_a_size_is_kept_for_a_while_after_a_loss(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 4, shape=SMALL).ready(4)
        world.go(1000, 1.0)
        world.sim.remove_slice(world.place("slice-4"))
        world.go(290, 1.0)
        assert count(world, "ready") == 3
        world.go(20, 1.0)
        assert (count(world, "ready"), len(world.rows())) == (2, 2)

    def test_pauses_are_forgotten_once_the_largest_size_was_reached(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 3, shape=SMALL).ready(3)
        world.go(2000, 1.0)
        assert world.known.pause.count > 1
        world.sim.add_slice("more")
        world.until(lambda: count(world, "ready") == 4, 30)
        world.step()
        assert world.known.pause.count == 0

    def test_a_slice_that_a_run_waits_for_does_not_go_back(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 3, shape=SMALL, work_s=400.0).ready(3)
        first = world.fleet.options(slices=1).submit(int)
        world.go(200, 1.0)
        world.fleet.options(slices=2).submit(int)
        world.go(1, 1.0)
        third = world.fleet.options(slices=1).submit(int)
        world.until(first.done, 300)
        world.go(2, 1.0)
        assert len(third.attempts) == 1
        assert world.changes("drain") == []

    def test_demand_ends_a_pause(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 3, shape=SMALL, work_s=5.0).ready(3)
        world.go(400, 1.0)
        assert "pauses for" in world.fleet.status().waits_for
        run = world.fleet.options(slices=3).submit(int)
        world.over(run, 30)
        assert sizes(run) == [3]

    def test_reservations_that_fail_hold_up_no_other_slice(self, sim_fleet: Make, monkeypatch: Any) -> None:
        world = sim_fleet(3, 4, shape=SMALL)
        submit = SimBackend.submit

        def refuse(sim: SimBackend, request: EffectRequest) -> None:
            if isinstance(request, Reserve) and len(sim.reserved()) >= 2:
                sim._told.append(Refused(request.slice_id, "quota exceeded"))
            else:
                submit(sim, request)

        monkeypatch.setattr(SimBackend, "submit", refuse)
        world.ready(2)
        world.go(300, 1.0)
        assert "quota exceeded" in world.fleet.status().waits_for
        lost = world.ids("ready")[0]
        world.sim.kill_host(world.place(lost), 0)
        world.until(lambda: bool(world.changes("preempt", lost)), 5)
        (made,) = [change for change in world.changes("create") if change.cause == lost]
        assert made.tick == world.changes("preempt", lost)[0].tick

    def test_capacity_that_is_lost_for_long_and_comes_back(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4, 8], 8, shape=SMALL, work_s=FOR_EVER).ready(8)
        run = world.fleet.submit(int)
        world.go(5, 1.0)
        gone = world.sim.places[:3]
        for place in gone:
            world.sim.remove_slice(place)
        world.go(60, 1.0)
        assert sizes(run) == [8, 4]
        world.go(320, 1.0)
        assert len(world.rows()) == 4
        for place in gone:
            world.sim.restore_slice(place)
        world.go(10, 1.0)
        assert len(world.rows()) == 8
        world.go(640, 1.0)
        assert sizes(run) == [8, 4, 8]


class TestSpares:
    def test_are_kept_at_a_first_start_too(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 4, shape=SMALL, spares=2, work_s=FOR_EVER).ready(4)
        run = world.fleet.submit(int)
        world.go(60, 1.0)
        assert (sizes(run), count(world, "ready")) == ([2], 2)

    def test_are_no_reason_to_begin(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 4, shape=SMALL, spares=2, work_s=FOR_EVER).ready(4)
        world.fleet.submit(int)
        world.go(1.0)
        waits = world.fleet.submit(int)
        world.go(30, 1.0)
        assert (sizes(waits), count(world, "ready")) == ([], 2)
        assert waits.status().detail == "waits for 2 ready slices that are free; 2 are"

    def test_make_up_for_a_loss_at_once(self, sim_fleet: Make) -> None:
        world = sim_fleet([1, 2, 4], 4, shape=SMALL, spares=2, work_s=FOR_EVER).ready(4)
        run = world.fleet.submit(int)
        world.go(60, 1.0)
        world.sim.remove_slice(world.place(run.attempts[0].slices[0]))
        world.go(3, 1.0)
        assert sizes(run) == [2, 2]


class TestSizesOfARun:
    def test_are_fixed_when_it_is_submitted(self, sim_fleet: Make) -> None:
        world = sim_fleet(4, 8, shape=SMALL, work_s=FOR_EVER).ready(4)
        run = world.fleet.submit(int)
        world.go(5, 1.0)
        world.fleet.scale(8)
        world.go(700, 1.0)
        assert sizes(run) == [4]
        world.sim.remove_slice(world.place(run.attempts[0].slices[0]))
        world.go(10, 1.0)
        assert sizes(run) == [4, 4]

    def test_beyond_what_is_wanted_it_can_no_longer_start_and_says_so(self, sim_fleet: Make) -> None:
        world = sim_fleet(4, 4, shape=SMALL, work_s=20.0).ready(4)
        first = world.fleet.submit(int)
        big = world.fleet.options(slices=4).submit(int)
        small = world.fleet.options(slices=1).submit(int)
        world.go(1, 1.0)
        world.fleet.scale(2)
        world.over(first)
        assert "can no longer start: it takes 4 slices, the fleet aims for 2" in big.status().detail
        assert "can no longer start" in str(world.fleet.why())
        world.over(small)
        world.fleet.scale(4)
        world.over(big)
        assert sizes(big) == [4]

    def test_beyond_the_largest_size_is_refused_whatever_the_spares(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, spares=1)
        with pytest.raises(ConfigurationError, match="asks for 3 slices, the fleet aims for 2"):
            world.fleet.options(slices=3)


class TestQueue:
    def test_one_that_cannot_start_is_overtaken(self, sim_fleet: Make) -> None:
        world = sim_fleet(4, 4, shape=SMALL, work_s=100.0).ready(4)
        big = world.fleet.submit(int)
        small = [world.fleet.options(slices=1).submit(int) for _ in range(2)]
        world.go(50, 1.0)
        world.sim.remove_slice(world.place("slice-1"))
        world.go(110, 1.0)
        assert [run.done() for run in (big, *small)] == [False, True, True]

    def test_after_a_while_slices_are_kept_for_it(self, sim_fleet: Make) -> None:
        world = sim_fleet(4, 4, shape=SMALL, work_s=FOR_EVER, settings={"overtake_s": 60.0}).ready(4)
        world.fleet.options(slices=2).submit(int)
        world.go(1, 1.0)
        big = world.fleet.options(slices=3).submit(int)
        world.go(61, 1.0)
        late = world.fleet.options(slices=1).submit(int)
        urgent = world.fleet.options(slices=1, priority=1).submit(int)
        world.go(5, 1.0)
        assert [len(run.attempts) for run in (big, late, urgent)] == [0, 0, 1]
        assert late.status().detail == "waits behind run-2"

    def test_priority_goes_before_the_order_of_submission(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=SMALL, work_s=10.0).ready(1)
        runs = [world.fleet.options(priority=priority).submit(int) for priority in (0, 0, 2, 1)]
        world.over(runs[1])
        begun = [run.attempts[0].started_epoch_s for run in runs]
        assert sorted(range(4), key=begun.__getitem__) == [2, 3, 0, 1]

    def test_what_a_run_was_stopped_to_grow_to_is_kept_for_it(self, sim_fleet: Make) -> None:
        world, first = about_to_grow(sim_fleet)
        second = world.fleet.options(slices=2).submit(int)
        world.step()
        assert second.status().detail.endswith("2 are, and kept for run-1")
        world.go(40, 1.0)
        assert (sizes(first), sizes(second)) == ([2, 4], [])

    def test_a_run_that_is_about_to_lose_a_slice_finds_its_replacement(self, sim_fleet: Make) -> None:
        settings = {"scale_up_after_s": 10.0}
        world = sim_fleet(3, 4, shape=SMALL, settings=settings, work_s=FOR_EVER, stop_s=FOR_EVER).ready(3)
        loses = world.fleet.options(slices=2, priority=10).submit(int)
        grows = world.fleet.options(slices=[1, 2]).submit(int)
        world.go(30, 1.0)
        place = world.place(loses.attempts[0].slices[1])
        world.sim.notice(place, 0, deadline_in_s=60.0)
        world.go(80, 1.0)
        world.sim.kill_host(place, 0)
        world.go(60, 1.0)
        assert (sizes(loses), sizes(grows)) == ([2, 2], [1])
        assert loses.status().state == "running"

    def test_nothing_is_kept_for_a_run_that_was_to_grow_and_is_cancelled(self, sim_fleet: Make) -> None:
        world, first = about_to_grow(sim_fleet)
        first.cancel(300.0)
        second = world.fleet.options(slices=2).submit(int)
        world.go(2, 1.0)
        assert second.status().state == "running"


class TestTime:
    def test_that_work_has_is_what_the_loop_waits_for(self, sim_fleet: Make) -> None:
        """What was decided in a tick says when the next one is due."""
        settings = {"loss_grace_s": 0.2, "silence_s": 60.0}
        world = sim_fleet(2, 3, shape=SMALL, settings=settings, work_s=FOR_EVER, stop_s=FOR_EVER).ready(2)
        run = world.fleet.submit(int)
        world.go(5, 0.5)
        world.sim.kill_host(world.place("slice-1"), 0)
        world.clock.advance(0.7)
        wait_s = world.fleet.step()
        assert run.record.attempts[0].stop_at == pytest.approx(world.known.now + 0.2)
        assert wait_s == pytest.approx(0.2)
        world.clock.advance(wait_s)
        world.fleet.step()
        assert run.record.attempts[0].force_by is not None

    def test_that_growth_pauses_counts_down(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 3, shape=SMALL, settings={"surplus_s": 60.0}).ready(3)
        world.until(lambda: "pauses for 50 s" in world.fleet.status().waits_for, within_s=600.0)
        world.until(lambda: "pauses for 20 s" in world.fleet.status().waits_for, within_s=31.0)

    def test_is_up_for_a_run_that_comes_when_the_fleet_closes(self, sim_fleet: Make) -> None:
        """A signal closes it by an order, and the program may go on."""
        world = sim_fleet(1, 1, shape=SMALL).ready(1)
        world.fleet._loop.inbox.order(Close(5.0))
        world.step()
        late = world.fleet.submit(int)
        world.step()
        assert (late.status().state, late.status().detail) == ("cancelled", "the fleet is closing")


class TestLimits:
    def test_ends_a_run_that_was_cancelled_with_more_time(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=SMALL, work_s=FOR_EVER, stop_s=FOR_EVER).ready(1)
        run = world.fleet.options(timeout_s=20.0).submit(int)
        world.go(5, 1.0)
        run.cancel(600.0)
        world.go(30, 1.0)
        assert run.status().state == "cancelled"
        assert len(world.told(Reason.LIMIT_REACHED)) == 1

    def test_are_not_needed_where_a_cancel_ends_it_sooner(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=SMALL, work_s=FOR_EVER, stop_s=FOR_EVER).ready(1)
        run = world.fleet.options(timeout_s=20.0).submit(int)
        world.go(5, 1.0)
        run.cancel(17.0)
        world.go(30, 1.0)
        assert run.status().state == "cancelled"
        assert world.told(Reason.LIMIT_REACHED) == []

    def test_a_run_that_waits_too_long_is_cancelled(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=SMALL, work_s=100.0).ready(1)
        first = world.fleet.options(max_wait_s=5.0).submit(int)
        second = world.fleet.options(max_wait_s=5.0).submit(int)
        world.go(6, 1.0)
        assert (first.status().state, second.status().state) == ("running", "cancelled")
        with pytest.raises(RunCancelled, match="it waited for slices for max_wait_s=5"):
            second.result()

    def test_a_run_that_takes_too_long_is_cancelled(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, shape=SMALL, work_s=100.0).ready(1)
        run = world.fleet.options(timeout_s=20.0).submit(int)
        world.go(19, 1.0)
        assert not run.done()
        world.over(run, 10)
        with pytest.raises(RunCancelled, match="it was not over within timeout_s=20"):
            run.result()

    @pytest.mark.parametrize("wrong", [{"max_wait_s": 0}, {"timeout_s": -1.0}, {"timeout_s": True}, {"priority": 1.5}])
    def test_wrong_ones_are_refused(self, sim_fleet: Make, wrong: Any) -> None:
        world = sim_fleet(1, 1)
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            world.fleet.options(**wrong)
