"""Runs on a simulated cluster: when they start, how they end, and what their owner is told."""

import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sliceform.controller import host_context
from sliceform.controller.api.run import Run
from sliceform.controller.errors import RunCancelled, RunFailed, RunPreempted

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py


def explode(text: str) -> None:
    raise ValueError(text)


class Unpicklable(Exception):
    """Cannot travel: it holds something that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("no way", lambda: None)


def refuse_to_travel() -> None:
    raise Unpicklable


class Counter:
    """Counts the hosts on which it ran; raises on some of them."""

    def __init__(self, *fail: int) -> None:
        self.calls = 0
        self.fail = fail

    def __call__(self) -> int:
        self.calls += 1
        if self.calls in self.fail:
            raise ValueError(f"call {self.calls}")
        return self.calls


def started(world: Any, run: Run, hosts: int = 2) -> None:
    """Wait until every process of the present attempt has been seen alive."""
    world.until(
        lambda: (
            run.record.active is not None
            and sum(host.state == "running" for row in world.rows() for host in row.hosts) == hosts
        )
    )


class TestResult:
    def test_comes_by_rank_and_by_slice(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 2).ready()
        count = Counter()
        result = world.fleet.run(count)
        assert result.values == [value for row in result.by_slice for value in row]
        assert [len(row) for row in result.by_slice] == [2, 2]
        assert sorted(result.values) == [1, 2, 3, 4]
        world.until(lambda: world.fleet.status().counts == {"ready": 2})

    def test_is_read_once_and_stays(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        run = world.fleet.submit(divmod, 7, 2)
        assert run.result() is run.result()
        assert run.result().values == [(3, 1), (3, 1)]
        assert (run.id, run.done(), run.status().state) == ("run-1", True, "succeeded")

    def test_not_there_in_time_leaves_the_run_alone(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, work_s=30.0).ready()
        run = world.fleet.submit(int)
        with pytest.raises(TimeoutError, match="run-1 is not over after 2 s: attempt 1 on slice-1; it goes on"):
            run.result(timeout_s=2.0)
        assert run.result().values == [0, 0]

    def test_needs_every_host_of_every_slice(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, work_s=20.0).ready()
        run = world.fleet.options(max_preemptions=0).submit(int)
        started(world, run, 4)
        world.sim.kill_host(world.place("slice-2"), 1)
        world.over(run)
        assert run.status().state == "preempted"
        assert set(run.attempts[0].hosts) != {"returned"}

    def test_counts_though_a_notice_came_meanwhile(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, work_s=5.0).ready()
        run = world.fleet.submit(int)
        started(world, run)
        world.sim.notice(world.place("slice-1"), 0, deadline_in_s=60.0)
        world.over(run)
        assert (run.status().state, len(run.attempts)) == ("succeeded", 1)


class TestNotice:
    def test_that_comes_second_with_less_time_is_told_to_all_hosts(self, sim_fleet: Make) -> None:
        """Work that was told a later deadline would be killed in the middle of saving."""
        world = sim_fleet(2, 4, work_s=20.0, settings={"drain_grace_s": 60.0}).ready()
        run = world.fleet.submit(lambda: host_context().deadline)
        started(world, run, 4)
        world.sim.notice(world.place("slice-1"), 0, source="first")
        world.until(lambda: "preempted" in {str(row.state) for row in world.fleet.status().slices})
        world.sim.notice(world.place("slice-1"), 0, source="second", deadline_in_s=40.0)
        world.step()
        world.sim.notice(world.place("slice-2"), 1, source="third", deadline_in_s=35.0)
        told = world.sim.clock.epoch() + 35.0
        world.over(run)
        assert run.result().values == [told] * 4

    def test_to_exit_with_code_0_is_to_return(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        assert world.fleet.run(sys.exit, 0).values == [None, None]

    def test_without_a_deadline_tells_when_the_work_will_be_stopped(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 4, work_s=20.0, settings={"drain_grace_s": 40.0}).ready()
        run = world.fleet.submit(lambda: host_context().deadline)
        started(world, run, 4)
        world.sim.notice(world.place("slice-1"), 0, source="maintenance")
        told = world.sim.clock.epoch() + 40.0
        world.over(run)
        assert run.result().values == pytest.approx([told] * 4, abs=1.0)

    @pytest.mark.parametrize("cause", ["drain", "loss"])
    def test_tells_those_who_are_left_when_they_will_be_stopped(self, sim_fleet: Make, cause: str) -> None:
        """An operator's drain has a time, and so may work after a loss."""
        world = sim_fleet(2, 4, work_s=20.0, settings={"loss_grace_s": 45.0}).ready()
        seen: list[tuple[int, float | None]] = []
        run = world.fleet.submit(lambda: seen.append((host_context().attempt, host_context().deadline)))
        started(world, run, 4)
        if cause == "drain":
            world.fleet.drain("slice-1", deadline_s=45.0)
        else:
            world.sim.kill_host(world.place("slice-1"), 0)
        told = world.sim.clock.epoch() + 45.0
        world.over(run)
        assert [deadline for attempt, deadline in seen if attempt == 1] == pytest.approx([told] * 2, abs=1.0)
        assert [deadline for attempt, deadline in seen if attempt == 2] == [None] * 4

    def test_that_gets_lost_on_its_way_is_told_again(self, sim_fleet: Make) -> None:
        """Asked for is not done: until the hosts have taken it in, it is asked for again."""
        world = sim_fleet(1, 2, work_s=120.0, settings={"drain_grace_s": 300.0}).ready()
        run = world.fleet.submit(lambda: host_context().should_stop())
        started(world, run, 2)
        world.faulty.inject(drop_request=1.0)
        world.sim.notice(world.place("slice-1"), 0, source="maintenance")
        world.go(3.0)
        world.faulty.heal()
        assert world.fleet.status().effects_in_flight
        world.over(run, within_s=200.0)
        assert run.result().values == [True, True]


class TestQueue:
    def test_is_first_come_first_served_and_says_what_a_run_waits_for(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 2, work_s=5.0)
        first, second = world.fleet.options(slices=2).submit(int), world.fleet.options(slices=1).submit(int)
        world.step()
        assert first.status().state == second.status().state == "waiting"
        assert first.status().detail == "waits for 2 ready slices that are free; 0 are"
        assert second.status().detail == "waits behind run-1"
        world.ready()
        world.until(lambda: first.status().state == "running")
        assert second.status().state == "waiting"
        world.over(second)
        assert first.attempts[0].ended_epoch_s is not None
        assert first.attempts[0].ended_epoch_s <= second.attempts[0].started_epoch_s

    def test_two_small_runs_share_the_fleet(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 2).ready()
        small = world.fleet.options(slices=1)
        first, second = small.submit(int), small.submit(int)
        world.until(lambda: len(world.rows("running")) == 2)
        assert first.attempts[0].slices != second.attempts[0].slices
        world.over(first)
        world.over(second)

    def test_a_smaller_size_will_do_once_nothing_was_added_for_a_while(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 4], 2, settings={"settle_s": 20.0}).ready(2)
        run = world.fleet.submit(int)
        world.go(10.0)
        assert "more for a larger size than 2 (2 or 4)" in run.status().detail
        world.until(lambda: bool(run.attempts), within_s=15.0)
        assert run.attempts[0].slices == ("slice-1", "slice-2")

    def test_the_largest_size_starts_at_once(self, sim_fleet: Make) -> None:
        world = sim_fleet([2, 3], 3, settings={"settle_s": 500.0}).ready(3)
        run = world.fleet.submit(int)
        world.step()
        assert run.attempts[0].slices == ("slice-1", "slice-2", "slice-3")


class TestRestart:
    def test_after_a_preemption_survivors_keep_their_rank(self, sim_fleet: Make) -> None:
        world = sim_fleet(3, 4, work_s=20.0).ready()
        run = world.fleet.submit(int)
        started(world, run, 6)
        world.sim.kill_host(world.place("slice-2"), 0)
        world.over(run)
        first, second = run.attempts
        assert (first.outcome, second.outcome) == ("preempted", "succeeded")
        assert first.slices == ("slice-1", "slice-2", "slice-3")
        assert second.slices == ("slice-1", "slice-4", "slice-3")
        assert (run.status().preemptions, run.status().failures) == (1, 0)
        assert run.record.attempts[1].spec.previous.startswith("preempted: slice-2")

    def test_after_a_failure_within_the_budget(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        run = world.fleet.options(max_failures=1).submit(Counter(1))
        world.over(run)
        assert [attempt.outcome for attempt in run.attempts] == ["failed", "succeeded"]
        assert (run.status().preemptions, run.status().failures) == (0, 1)

    def test_an_agent_that_died_on_a_living_node_charges_failures(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, work_s=20.0).ready()
        run = world.fleet.options(max_preemptions=5).submit(int)
        started(world, run)
        world.sim.kill_agent(world.place("slice-1"), 0)
        world.over(run)
        assert (run.status().preemptions, run.status().failures) == (0, 1)
        with pytest.raises(RunFailed):
            run.result()

    @pytest.mark.parametrize("max_failures", [0, 3], ids=["the run waits for the verdict", "it goes on meanwhile"])
    def test_an_agent_that_died_just_before_its_node_charges_preemptions(
        self, sim_fleet: Make, max_failures: int
    ) -> None:
        world = sim_fleet(1, 2, spares=1, work_s=20.0).ready(2)
        run = world.fleet.options(max_failures=max_failures).submit(int)
        started(world, run)
        place = world.place("slice-1")
        world.sim.kill_agent(place, 0)
        world.go(0.75)
        assert run.attempts[0].outcome is None, "what it is charged to may still change"
        assert ("prove to be the loss" in run.status().detail) is (max_failures == 0)
        world.sim.kill_host(place, 0)
        world.until(lambda: len(run.attempts) == 2, within_s=3.0)
        world.until(lambda: run.status().preemptions == 1, within_s=3.0)
        assert (run.status().failures, run.attempts[0].outcome) == (0, "preempted")
        world.over(run)
        assert run.status().state == "succeeded"

    def test_a_node_that_died_charges_preemptions(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, work_s=20.0).ready()
        run = world.fleet.options(max_failures=5, max_preemptions=0).submit(int)
        started(world, run)
        world.sim.kill_host(world.place("slice-1"), 0)
        world.over(run)
        assert (run.status().preemptions, run.status().failures) == (1, 0)
        with pytest.raises(RunPreempted, match="run-1 was preempted after 1 attempt, max_preemptions=0") as caught:
            run.result()
        assert [attempt.outcome for attempt in caught.value.attempts] == ["preempted"]


class TestFailure:
    def test_shows_the_remote_traceback_the_host_and_the_attempts(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 2).ready()
        run = world.fleet.submit(explode, "boom")
        with pytest.raises(RunFailed, match="boom") as caught:
            run.result()
        error = caught.value
        assert "raise ValueError(text)\nValueError: boom" in error.remote_traceback
        assert "in explode" in str(error)
        assert error.host == "slice-1/0"
        assert (error.run_id, len(error.attempts)) == ("run-1", 1)
        assert isinstance(error.__cause__, ValueError)
        assert pickle.loads(pickle.dumps(error)).host == error.host
        world.until(lambda: world.fleet.status().counts == {"ready": 2})
        assert world.changes("preempt") == []

    def test_of_an_exception_that_cannot_travel_shows_its_traceback(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        with pytest.raises(RunFailed, match="no way") as caught:
            world.fleet.run(refuse_to_travel)
        assert caught.value.exception is None
        assert "Unpicklable" in caught.value.remote_traceback

    def test_of_one_host_stops_the_others(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, work_s=3.0).ready()
        run = world.over(world.fleet.submit(Counter(1)))
        assert run.status().state == "failed"
        assert run.attempts[0].hosts[0] == "raised"


class TestCancel:
    def test_while_it_waits(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 0)
        run = world.fleet.submit(int)
        world.step()
        run.cancel()
        world.step()
        with pytest.raises(RunCancelled, match="run-1 was cancelled after 0 attempts"):
            run.result(timeout_s=0.0)

    def test_while_it_runs_leaves_no_process_and_frees_the_slice(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, work_s=1e6).ready()
        run = world.fleet.submit(int)
        started(world, run)
        run.cancel(grace_s=1.0)
        run.cancel(grace_s=50.0)
        world.over(run, within_s=5.0)
        with pytest.raises(RunCancelled) as caught:
            run.result()
        assert [attempt.outcome for attempt in caught.value.attempts] == ["cancelled"]
        assert [holding.processes for holding in world.sim.audit().values()] == [0]
        world.until(lambda: world.fleet.status().counts == {"ready": 1})
        again = world.fleet.submit(int)
        started(world, again)
        again.cancel(0.0)

    def test_asked_again_with_less_time_takes_less(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1, work_s=600.0, stop_s=600.0).ready()
        run = world.fleet.submit(int)
        started(world, run, 2)
        run.cancel(grace_s=300.0)
        world.go(2.0)
        run.cancel(grace_s=400.0)
        world.go(2.0)
        assert not run.done()
        run.cancel(grace_s=0.0)
        world.over(run, within_s=5.0)
        assert run.record.ended == "cancelled"

    def test_after_it_is_over_changes_nothing(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        run = world.fleet.submit(int)
        assert run.result().values == [0, 0]
        run.cancel()
        world.step()
        assert run.status().state == "succeeded"
