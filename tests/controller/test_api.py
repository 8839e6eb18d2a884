"""The public controller: its life, what it refuses, and the thread it ticks on."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sliceform.controller.api import closing
from sliceform.controller.api.controller import SliceController
from sliceform.controller.errors import (
    ConfigurationError,
    FleetClosedError,
    FleetNameTakenError,
    InsufficientSlicesError,
    RunCancelled,
    UnknownSliceError,
)
from sliceform.controller.model.orders import Scale
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.obey import obey
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import replay

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py
SHAPE = TpuSlice("v4-16")
BAD_SLICES: list[Any] = [0, -1, [], [0, 2], [2, -4], True, [True], "2", 1.5, None, [None], {2: 4}]


class TestBadInput:
    @pytest.mark.parametrize("slices", BAD_SLICES, ids=repr)
    def test_slices_that_cannot_be(self, slices: Any) -> None:
        with pytest.raises(ValueError, match="slices"):
            SliceController(SHAPE, slices, backend=SimBackend(SHAPE))

    @pytest.mark.parametrize("slices", BAD_SLICES, ids=repr)
    def test_leaves_what_runs_alone(self, sim_fleet: Make, slices: Any) -> None:
        world = sim_fleet(1, 2, work_s=5.0).ready()
        run = world.fleet.submit(int)
        world.go(1.0)
        with pytest.raises(ValueError, match="slices"):
            world.fleet.scale(slices)
        if slices is not None:
            with pytest.raises(ValueError, match="slices"):
                world.fleet.options(slices=slices)
        assert world.over(run).status().state == "succeeded"
        world.go(2.0)
        assert world.ids() == ["slice-1"]
        assert (world.fleet.status().sizes, world.fleet.plan()) == ((1,), ())

    @pytest.mark.parametrize("spares", [-1, True, 0.5, "1"])
    def test_spares_that_cannot_be(self, sim_fleet: Make, spares: Any) -> None:
        with pytest.raises(ValueError, match="spares"):
            SliceController(SHAPE, 1, spares=spares, backend=SimBackend(SHAPE))
        world = sim_fleet(1, 1).ready()
        with pytest.raises(ValueError, match="spares"):
            world.fleet.scale(1, spares=spares)
        world.go(1.0)
        assert world.fleet.status().spares == 0

    @pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 64, "ü"])
    def test_names(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="name"):
            SliceController(SHAPE, name=name, backend=SimBackend(SHAPE))

    def test_a_shape_that_is_none(self) -> None:
        wrong: Any = "v4-16"
        with pytest.raises(ConfigurationError, match="TpuSlice, GpuSlice or CpuSlice"):
            SliceController(wrong)

    @pytest.mark.parametrize("n", [0, -1, 3])
    def test_waiting_for_what_is_not_aimed_for(self, sim_fleet: Make, n: int) -> None:
        with pytest.raises(ConfigurationError, match="aims for 2 slices"):
            sim_fleet(1, 2, spares=1).fleet.wait_ready(n)

    @pytest.mark.parametrize("n", [True, 1.0, "1"])
    def test_waiting_for_what_is_no_number(self, sim_fleet: Make, n: Any) -> None:
        with pytest.raises(ConfigurationError, match="wait_ready"):
            sim_fleet(1, 1).fleet.wait_ready(n)

    def test_slices_that_are_not_there(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        for ask in (world.fleet.drain, world.fleet.why):
            with pytest.raises(UnknownSliceError, match="no slice 'slice-9' in this fleet; known: slice-1"):
                ask("slice-9")
        with pytest.raises(ConfigurationError, match="deadline_s"):
            world.fleet.drain("slice-1", deadline_s=-1.0)
        world.go(1.0)
        assert world.ids("ready") == ["slice-1"]

    @pytest.mark.parametrize("name", ["max_preemptions", "max_failures"])
    @pytest.mark.parametrize("value", [-1, True, 1.5, "1", None])
    def test_budgets(self, sim_fleet: Make, name: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=name):
            sim_fleet(1, 1).fleet.options(**{name: value})

    def test_a_run_larger_than_the_fleet(self, sim_fleet: Make) -> None:
        with pytest.raises(ConfigurationError, match="scale it first"):
            sim_fleet(1, 1).fleet.options(slices=2)

    def test_a_name_that_another_holds(self) -> None:
        sim = SimBackend(SHAPE)
        sim.take_name("train")
        with pytest.raises(FleetNameTakenError, match="train"):
            SliceController(SHAPE, name="train", backend=sim).start()
        assert sim.audit() == {}

    def test_numbers_of_numpy_will_do(self) -> None:
        fleet = SliceController(SHAPE, np.arange(2, 4), backend=SimBackend(SHAPE), clock=FakeClock())
        assert fleet.status().sizes == (2, 3)
        fleet.close()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"env": {"A": "1"}, "runtime_env": {"env_vars": {"A": "2"}}}, "different values for A"),
            ({"runtime_env": "pip"}, "runtime_env must be a dictionary"),
            ({"env": ["A=1"]}, "env must be a dictionary of names and texts, not list"),
            ({"env": {"A": None}}, "env: the value of A is None: give text, or leave the variable out"),
            ({"env": {"A": True}}, "env: the value of A is of type bool"),
            ({"env": {"A=B": "1"}}, "'A=B' cannot be the name of a variable"),
            ({"env": {"": "1"}}, "'' cannot be the name of a variable"),
            ({"env": {3: "1"}}, "3 cannot be the name of a variable"),
            ({"env": {"A": "1\0"}}, "the value of A has a null character"),
            ({"runtime_env": {"env_vars": {"A": None}}}, "runtime_env's env_vars: the value of A is None"),
            ({"runtime_env": {"env_vars": {"A=B": "1"}}}, "runtime_env's env_vars: 'A=B' cannot be the name"),
            ({"env": {"JAX_PROCESS_ID": "3"}}, "JAX_PROCESS_ID: the fleet sees to it on every host, so leave it out"),
            ({"runtime_env": {"env_vars": {"SLICEFORM_RANK": "3"}}}, "SLICEFORM_RANK: the fleet"),
        ],
    )
    def test_environments_that_cannot_be_are_refused(self, options: dict[str, Any], says: str) -> None:
        sim = SimBackend(SHAPE, 1)
        fleet = SliceController(SHAPE, backend=sim, clock=sim.clock)
        with pytest.raises(ConfigurationError, match=says):
            fleet.options(**options)
        fleet.options(env={"A": "1"}, runtime_env={"env_vars": {"A": "1", "B": "2"}})
        fleet.options(env={"SLICEFORM_SILENCE_S": "5"}, runtime_env={"env_vars": None})
        fleet.close()


class TestPack:
    def test_the_backend_is_told_the_runtime_environment_of_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only it can say whether that goes with what the function brings along."""
        told: list[Any] = []
        pack = SimBackend.pack

        def spy(sim: SimBackend, fn: Any, args: Any, kwargs: Any, runtime_env: Any = None) -> Any:
            told.append(runtime_env)
            return pack(sim, fn, args, kwargs, runtime_env)

        monkeypatch.setattr(SimBackend, "pack", spy)
        sim = SimBackend(SHAPE, 1)
        fleet = SliceController(SHAPE, backend=sim, clock=sim.clock)
        fleet.options(runtime_env={"pip": ["x"]}).submit(int)
        fleet.submit(int)
        fleet.close()
        assert told == [{"pip": ["x"]}, None]


class TestPlan:
    def test_is_what_the_next_tick_commits_and_changes_nothing(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3)
        world.step()
        for change in (
            lambda: world.fleet.scale(3),
            lambda: world.fleet.scale(1),
            lambda: world.fleet.drain(world.ids("ready")[0], 0.0),
        ):
            world.until(lambda: world.fleet.status().effects_in_flight == 0)
            world.go(1.0)
            change()
            for order in world.fleet._loop.inbox.take(0.0, 0.0).orders:
                obey(world.fleet._ledger, order, RunRecord.of)
            seq, status = world.fleet.history.last_seq, world.fleet.status()
            steps = world.fleet.plan()
            assert steps
            assert world.fleet.plan() == steps
            assert (world.fleet.history.last_seq, world.fleet.status()) == (seq, status)
            world.step(0.0)
            done = [(c.key, c.trigger, c.reason, c.cause) for c in world.fleet.history.since(seq)]
            assert done == [(s.key, s.trigger, s.reason, s.cause) for s in steps]

    def test_leaves_the_places_alone_that_it_would_use(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3).ready()
        world.fleet.scale(1)
        world.step()
        loop, ledger = world.fleet._loop, world.fleet._ledger

        def released() -> bool:
            world.clock.advance(0.05)
            world.sim.poll()
            loop._observer.take(loop.inbox.take(world.clock.monotonic(), world.clock.epoch()))
            return any(life.view.released for life in ledger.fleet.lives.values())

        assert any(released() for _ in range(200))
        obey(ledger, Scale((3,), 0), RunRecord.of)
        free = sorted(ledger.outlook.free)
        assert {str(step).split()[0] for step in world.fleet.plan()} >= {"release", "create"}
        assert sorted(ledger.outlook.free) == free

    def test_shows_facts_that_are_known_and_what_follows_from_them(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 2).ready()
        world.go(2.0)
        world.sim.notice(world.place("slice-1"), 0)
        world.sim.poll()
        for event in world.fleet._loop.inbox.take(0.0, 0.0).events:
            world.fleet._loop._observer._take(event)
        seq, steps = world.fleet.history.last_seq, world.fleet.plan()
        assert {str(step).split()[0] for step in steps} == {"preempt", "drain", "create"}
        assert world.row("slice-1").state == "ready"
        world.step(0.0)
        done = [(c.key, c.trigger, c.reason, c.cause) for c in world.fleet.history.since(seq)]
        assert done == [(s.key, s.trigger, s.reason, s.cause) for s in steps]


class TestClose:
    def test_leaves_nothing_and_is_harmless_the_second_time(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 3, work_s=1e6).ready()
        run = world.fleet.submit(int)
        world.go(1.0)
        world.fleet.close(grace_s=1.0)
        assert world.sim.audit() == world.sim.left_at_close == {}
        assert replay(world.fleet.history) == ()
        with pytest.raises(RunCancelled):
            run.result()
        world.fleet.close()

    def test_ends_all_use(self, sim_fleet: Make) -> None:
        fleet = sim_fleet(1, 1).ready().fleet
        fleet.close()
        for use in (
            fleet.start,
            fleet.step,
            fleet.wait_ready,
            lambda: fleet.scale(2),
            lambda: fleet.submit(int),
            lambda: fleet.run(int),
            lambda: fleet.drain("slice-1"),
        ):
            with pytest.raises(FleetClosedError, match="make a new"):
                use()
        assert fleet.status().slices == ()
        assert len(fleet.history) > 0

    def test_before_anything_began(self) -> None:
        sim = SimBackend(SHAPE)
        SliceController(SHAPE, backend=sim).close()
        assert sim.audit() == {}

    def test_while_nothing_can_be_observed(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 2).ready()
        world.sim.fail_observation()
        world.go(2.0)
        world.fleet.close(grace_s=0.0)
        assert world.sim.left_at_close == {}


class TestOnItsOwnThread:
    """The real thread and the real clock: every wait is on a condition, and bounded."""

    @pytest.fixture
    def sim(self) -> Iterator[SimBackend]:
        from sliceform.controller.model.clock import SystemClock

        quick = {"place_s": 0.01, "assemble_s": 0.0, "agent_s": 0.01, "launch_s": 0.0, "work_s": 0.05}
        yield SimBackend(SHAPE, 3, clock=SystemClock(), remove_s=0.01, stop_s=0.0, node_death_s=0.05, **quick)
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sliceform-")]
        assert left == []

    @staticmethod
    def fleet(sim: SimBackend, slices: Any = 2, **options: Any) -> SliceController:
        settings = Settings(resync_s=0.02, nodes_every_s=0.02, beat_s=0.05)
        return SliceController(SHAPE, slices, settings=settings, backend=sim, **options)

    def test_comes_up_runs_and_leaves_nothing(self, sim: SimBackend) -> None:
        with self.fleet(sim) as fleet:
            assert fleet.wait_ready(timeout_s=60.0).ready == 2
            run = fleet.submit(divmod, 7, 2)
            assert run.result(timeout_s=60.0).values == [(3, 1)] * 4
            assert run.status().state == "succeeded"
            assert fleet.plan() == ()
            with pytest.raises(ConfigurationError, match="ticks by itself"):
                fleet.step()
            assert fleet.start() is fleet
        assert sim.left_at_close == {}

    def test_waiting_ends_though_the_fleet_s_clock_stands_still(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody advances it, so that nothing becomes ready and nothing is given back."""
        monkeypatch.setattr(closing, "_RELEASE_S", 0.1)
        still = SimBackend(SHAPE, 2, clock=FakeClock())
        fleet = self.fleet(still, clock=still.clock).start()
        begun = time.monotonic()
        with pytest.raises(InsufficientSlicesError):
            fleet.wait_ready(timeout_s=0.1)
        fleet.close(grace_s=0.1)
        assert time.monotonic() - begun < 60.0

    def test_a_wait_without_end_looks_up_now_and_then(self, sim: SimBackend) -> None:
        """Else a signal that comes as it begins would be dealt with when it ends."""
        times: list[float | None] = []

        class Late(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                times.append(timeout)
                if len(times) == 3:
                    self.set()
                return super().wait(0.0)

        with self.fleet(sim) as fleet:
            assert fleet._opened().wait_event(Late(), None)
            assert not fleet._opened().wait_event(threading.Event(), 0.0)
        assert times == [1.0, 1.0, 1.0]

    def test_leaving_the_body_waits_for_its_runs(self, sim: SimBackend) -> None:
        with self.fleet(sim) as fleet:
            run = fleet.submit(int)
        assert run.result(timeout_s=0.0).values == [0] * 4

    @pytest.mark.timeout(60)
    def test_leaving_the_body_cancels_a_run_that_never_starts(self, sim: SimBackend) -> None:
        """Nobody is left to make the fleet as large as it was."""
        sim._timeline.timings = replace(sim.timings, work_s=2.0)
        with self.fleet(sim) as fleet:
            first = fleet.options(slices=1).submit(int)
            waiting = fleet.options(slices=2).submit(int)
            fleet.scale(1)
        assert first.result(timeout_s=0.0).values == [0] * 2
        with pytest.raises(RunCancelled):
            waiting.result(timeout_s=0.0)

    def test_an_exception_in_the_body_cancels_them(self, sim: SimBackend) -> None:
        sim._timeline.timings = replace(sim.timings, work_s=3600.0)
        begun = time.monotonic()
        with pytest.raises(KeyError, match="mine"), self.fleet(sim) as fleet:  # noqa: PT012 - what is left is the point
            run = fleet.options(slices=1).submit(int)
            waiting = fleet.options(slices=2).submit(int)
            raise KeyError("mine")
        for each in (run, waiting):
            with pytest.raises(RunCancelled):
                each.result(timeout_s=0.0)
        assert sim.left_at_close == {}
        assert time.monotonic() - begun < 60.0

    def test_closing_at_once_leaves_nothing(self, sim: SimBackend) -> None:
        """Also when the close comes in the midst of the tick that creates the first slices."""
        created = threading.Event()
        submit = sim.submit

        def slow(request: Any) -> None:
            created.set()
            time.sleep(0.05)
            submit(request)

        sim.submit = slow  # type: ignore[method-assign]
        fleet = self.fleet(sim).start()
        assert created.wait(60.0)
        fleet.close()
        assert sim.left_at_close == {}

    def test_a_lost_host_is_replaced(self, sim: SimBackend) -> None:
        with self.fleet(sim) as fleet:
            fleet.wait_ready(timeout_s=60.0)
            place = fleet.status().slices[0].place
            assert place is not None
            sim.kill_host(place, 0)
            fleet._drive.wait(lambda status: [row.id for row in status.slices] == ["slice-2", "slice-3"], 10.0)
            assert fleet.wait_ready(2, timeout_s=60.0).slices[1].replaces == "slice-1"

    def test_a_tick_that_raises_does_not_end_the_loop(self, sim: SimBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        from sliceform.controller.api import runner

        monkeypatch.setattr(runner, "_AFTER_ERROR_S", 0.01)
        broken = threading.Event()

        def breaks() -> None:
            broken.set()
            raise RuntimeError("a bug of ours")

        with self.fleet(sim) as fleet:
            fleet._loop.inbox.ask(breaks)
            assert broken.wait(60.0)
            assert fleet.wait_ready(timeout_s=60.0).ready == 2
            assert fleet._drive.runner is not None
            assert fleet._drive.runner.errors == 1

    def test_questions_from_many_threads_are_answered(self, sim: SimBackend) -> None:
        with self.fleet(sim) as fleet:
            fleet.wait_ready(timeout_s=60.0)
            answers: list[Any] = []
            threads = [threading.Thread(target=lambda: answers.append(fleet.plan())) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60.0)
            assert answers == [()] * 8
