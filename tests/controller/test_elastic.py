"""Runs over several valid sizes: they grow, shrink, pause between attempts, and follow the user's rules of retrying."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from sliceform.controller import ConfigurationError, RunFailed, RunPreempted, Stopped, host_context
from sliceform.controller.api.run import Run
from sliceform.controller.model.run_options import RunOptions
from sliceform.states.reasons import Reason

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py

#: Long work, told to stop long before its end, which it has time to reach.
PATIENT = {"settle_s": 1.0, "scale_up_after_s": 10.0, "drain_grace_s": 60.0}


class Training:
    """Saves and raises `Stopped` when it is told to stop, else returns; keeps what every host saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, bool]] = []

    def __call__(self) -> int:
        me = host_context()
        self.seen.append((me.attempt, me.num_slices, me.should_stop()))
        if me.should_stop():
            assert me.deadline is not None
            raise Stopped("saved")
        return me.num_slices


def begun(world: Any, run: Run, number: int = 1) -> None:
    world.until(lambda: len(run.attempts) == number and run.record.active is not None)


class TestGrowth:
    def small(self, sim_fleet: Make, **options: Any) -> tuple[Any, Run, Training]:
        """A run on two of four slices, of which the other two were missing when it began."""
        world = sim_fleet([2, 4], 2, work_s=40.0, settings=PATIENT, **options)
        train = Training()
        run = world.fleet.submit(train)
        begun(world, run)
        assert len(run.attempts[0].slices) == 2
        return world, run, train

    def test_asks_the_work_to_save_and_starts_it_again_on_more(self, sim_fleet: Make) -> None:
        world, run, train = self.small(sim_fleet)
        for place in ("more-1", "more-2"):
            world.sim.add_slice(place)
        world.over(run)
        assert [(a.outcome, len(a.slices)) for a in run.attempts] == [("superseded", 2), ("succeeded", 4)]
        assert run.attempts[0].detail == "to grow from 2 to 4 slices"
        assert run.attempts[1].slices[:2] == run.attempts[0].slices
        assert set(train.seen) == {(1, 2, True), (2, 4, False)}
        status = run.status()
        assert (status.preemptions, status.failures) == (0, 0)
        (note,) = world.told(Reason.ATTEMPT_SUPERSEDED)
        assert (note.key, note.trigger) == (f"{run.id}/1", "stop")
        assert run.result().values == [4] * 8

    def test_waits_until_they_have_been_free_for_a_while_and_says_so(self, sim_fleet: Make) -> None:
        world, run, _ = self.small(sim_fleet)
        for place in ("more-1", "more-2"):
            world.sim.add_slice(place)
        world.until(lambda: world.fleet.status().ready == 4)
        world.step()
        assert "starts again on 4 slices in" in run.status().detail
        world.go(9.0)
        assert world.told(Reason.ATTEMPT_SUPERSEDED) == []
        world.sim.kill_host(world.place(world.ids("ready")[0]), 0)
        world.sim.remove_slice("more-1")
        world.go(3.0)
        assert world.told(Reason.ATTEMPT_SUPERSEDED) == []
        assert "starts again" not in run.status().detail

    def test_goes_ahead_only_with_a_whole_larger_size(self, sim_fleet: Make) -> None:
        world, run, _ = self.small(sim_fleet)
        world.sim.add_slice("more-1")
        world.over(run)
        assert len(run.attempts) == 1

    def test_leaves_spares_alone(self, sim_fleet: Make) -> None:
        world, run, _ = self.small(sim_fleet, spares=1)
        for place in ("more-1", "more-2"):
            world.sim.add_slice(place)
        world.over(run)
        assert len(run.attempts) == 1

    def test_leaves_a_run_that_is_for_certain_slices_alone(self, sim_fleet: Make) -> None:
        world = sim_fleet([1, 2], 2, work_s=40.0, settings=PATIENT).ready(2)
        run = world.fleet._submit(RunOptions(pinned=("slice-2",)), int, (), {})
        world.over(run)
        assert [attempt.slices for attempt in run.attempts] == [("slice-2",)]

    def test_lets_a_run_that_waits_go_first(self, sim_fleet: Make) -> None:
        world, run, _ = self.small(sim_fleet)
        second = world.fleet.options(slices=4).submit(int)
        for place in ("more-1", "more-2"):
            world.sim.add_slice(place)
        world.over(second)
        assert len(run.attempts) == 1

    def test_work_that_does_not_listen_is_stopped_when_its_time_is_over(self, sim_fleet: Make) -> None:
        world = sim_fleet([1, 2], 1, work_s=500.0, settings={**PATIENT, "drain_grace_s": 5.0})
        run = world.fleet.submit(int)
        begun(world, run)
        world.sim.add_slice("more")
        begun(world, run, 2)
        assert set(run.attempts[0].hosts) == {"stopped"}
        first, second = run.attempts
        assert (first.outcome, len(second.slices)) == ("superseded", 2)

    def test_a_loss_meanwhile_is_a_preemption(self, sim_fleet: Make) -> None:
        world, run, _ = self.small(sim_fleet)
        for place in ("more-1", "more-2"):
            world.sim.add_slice(place)
        world.until(lambda: bool(world.told(Reason.ATTEMPT_SUPERSEDED)))
        world.sim.kill_host(world.place(run.attempts[0].slices[0]), 0)
        world.over(run)
        assert run.attempts[0].outcome == "preempted"
        assert run.status().preemptions == 1

    def test_a_cancel_meanwhile_ends_it(self, sim_fleet: Make) -> None:
        world, run, _ = self.small(sim_fleet)
        for place in ("more-1", "more-2"):
            world.sim.add_slice(place)
        world.until(lambda: bool(world.told(Reason.ATTEMPT_SUPERSEDED)))
        assert "to grow from 2 to 4 slices: its work has" in run.status().detail
        run.cancel(0.0)
        world.over(run, within_s=5.0)
        assert (run.status().state, run.attempts[0].outcome) == ("cancelled", "cancelled")

    def test_work_that_returns_has_succeeded(self, sim_fleet: Make) -> None:
        world = sim_fleet([1, 2], 1, work_s=40.0, settings=PATIENT)
        run = world.fleet.submit(lambda: "done")
        begun(world, run)
        world.sim.add_slice("more")
        world.over(run)
        assert world.told(Reason.ATTEMPT_SUPERSEDED)
        assert run.result().values == ["done", "done"]


class TestShrink:
    def test_goes_on_with_what_is_valid_and_ready(self, sim_fleet: Make) -> None:
        world = sim_fleet([1, 2], 2, work_s=20.0, settings={"settle_s": 2.0}).ready(2)
        run = world.fleet.submit(Training())
        begun(world, run)
        world.sim.kill_host(world.place("slice-1"), 1)
        world.over(run)
        assert [(a.outcome, a.slices) for a in run.attempts] == [
            ("preempted", ("slice-1", "slice-2")),
            ("succeeded", ("slice-2",)),
        ]

    def test_a_spare_takes_the_lost_rank_at_once(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, spares=1, work_s=20.0).ready(3)
        run = world.fleet.submit(int)
        begun(world, run)
        world.sim.kill_host(world.place("slice-1"), 1)
        begun(world, run, 2)
        assert run.attempts[1].slices == ("slice-3", "slice-2")
        waited_s = run.attempts[1].started_epoch_s - run.attempts[0].ended_epoch_s
        assert waited_s <= 0.25


class TestNotice:
    def test_loses_nothing_but_the_step_it_was_in(self, sim_fleet: Make) -> None:
        """Work that is told in time saves, stops, and goes on elsewhere."""
        world = sim_fleet(1, 2, work_s=5.0).ready()
        train = Training()
        run = world.fleet.submit(train)
        begun(world, run)
        world.sim.notice(world.place("slice-1"), 0, deadline_in_s=20.0)
        world.over(run)
        assert [(a.outcome, a.slices) for a in run.attempts] == [
            ("preempted", ("slice-1",)),
            ("succeeded", ("slice-2",)),
        ]
        assert train.seen == [(1, 1, True)] * 2 + [(2, 1, False)] * 2


class OutOfQuota(OSError):
    """What the user's code raises when it is worth another try."""


class Failing:
    """Raises what it is told to, one failure per attempt, then returns."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = errors

    def __call__(self) -> str:
        number = host_context().attempt
        if number <= len(self.errors):
            raise self.errors[number - 1]
        return "done"


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "error"),
        [(OutOfQuota, OutOfQuota("full")), (OSError, OutOfQuota("full")), (42, SystemExit(42))],
        ids=["class", "subclass", "exit code"],
    )
    def test_retry_charges_preemptions(self, sim_fleet: Make, rule: Any, error: BaseException) -> None:
        world = sim_fleet(1, 1).ready()
        run = world.over(world.fleet.options(max_failures=0, retry_on=[rule]).submit(Failing(error)))
        assert [attempt.outcome for attempt in run.attempts] == ["failed", "succeeded"]
        assert (run.status().preemptions, run.status().failures) == (1, 0)

    def test_what_follows_a_failure_does_not_excuse_it(self, sim_fleet: Make) -> None:
        """The first host to fail decides: the others lose their connection to it."""

        def fail() -> None:
            raise ValueError if host_context().rank == 0 else ConnectionError

        world = sim_fleet(1, 1).ready()
        run = world.over(world.fleet.options(max_failures=0, retry_on=[ConnectionError]).submit(fail))
        assert [attempt.outcome for attempt in run.attempts] == ["failed"]
        assert run.status().failures == 1

    def test_retry_ends_with_its_budget(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        options = world.fleet.options(max_preemptions=1, max_failures=9, retry_on=[OSError])
        run = world.over(options.submit(Failing(OSError("a"), OSError("b"), OSError("c"))))
        assert len(run.attempts) == 2
        with pytest.raises(RunFailed, match=r"max_failures=9.*OSError: b"):
            run.result()

    @pytest.mark.parametrize(
        ("rule", "error"), [(ValueError, UnicodeError("bad")), (3, SystemExit(3))], ids=["class", "exit code"]
    )
    def test_never_ends_the_run_whatever_is_left(self, sim_fleet: Make, rule: Any, error: BaseException) -> None:
        world = sim_fleet(1, 1).ready()
        rules = {"never_retry_on": [rule], "retry_on": [Exception, 3]}
        run = world.over(world.fleet.options(max_failures=9, **rules).submit(Failing(error)))
        assert len(run.attempts) == 1
        with pytest.raises(RunFailed):
            run.result()

    def test_other_failures_are_counted_as_ever(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        rules = {"never_retry_on": [ValueError], "retry_on": [OSError, 42]}
        options = world.fleet.options(max_failures=1, **rules)
        run = world.over(options.submit(Failing(KeyError("a"), SystemExit(4))))
        assert (run.status().preemptions, run.status().failures) == (0, 2)

    @pytest.mark.parametrize("rule", ["OSError", True, 1.5, int, OSError("x")])
    def test_refuses_what_is_no_rule(self, sim_fleet: Make, rule: Any) -> None:
        world = sim_fleet(1, 1)
        with pytest.raises(ConfigurationError, match="retry_on takes exception classes and exit codes"):
            world.fleet.options(retry_on=[rule])


class TestPauses:
    def pauses(self, run: Run) -> list[float]:
        tries = run.attempts
        return [after.started_epoch_s - (before.ended_epoch_s or 0.0) for before, after in itertools.pairwise(tries)]

    def test_failures_in_a_row_wait_longer_and_longer(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        failing = Failing(*[ValueError("x")] * 6)
        run = world.over(world.fleet.options(max_failures=9).submit(failing))
        pauses = self.pauses(run)
        assert len(pauses) == 6
        assert pauses[0] <= 0.75
        assert pauses[-1] >= 8.0

    def test_the_first_preemption_does_not_wait_and_those_that_follow_hard_do(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 6, spares=4, work_s=1e6).ready(5)
        run = world.fleet.submit(int)
        for number in (1, 2, 3, 4):
            begun(world, run, number)
            world.sim.kill_host(world.place(run.attempts[-1].slices[0]), 0)
        begun(world, run, 5)
        pauses = self.pauses(run)
        assert pauses[0] <= 0.25
        assert pauses[-1] >= 1.0
        run.cancel(0.0)

    def test_work_that_went_on_for_long_begins_anew(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 4, spares=2, work_s=1e6, settings={"backoff_max_s": 2.0}).ready(3)
        run = world.fleet.submit(int)
        for number in (1, 2):
            begun(world, run, number)
            world.go(3.0)
            world.sim.kill_host(world.place(run.attempts[-1].slices[0]), 0)
        begun(world, run, 3)
        assert max(self.pauses(run)) <= 0.25
        run.cancel(0.0)

    def test_a_budget_that_is_used_up_is_a_preemption(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2, work_s=1e6).ready()
        run = world.fleet.options(max_preemptions=0).submit(int)
        begun(world, run)
        world.sim.kill_host(world.place("slice-1"), 0)
        world.over(run)
        with pytest.raises(RunPreempted):
            run.result()
