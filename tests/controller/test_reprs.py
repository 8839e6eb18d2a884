"""What is printed by accident, in a notebook, a log line or a failed test, is short and holds no secret."""

import dataclasses
import importlib
import pkgutil

import pytest

import sliceform.controller
from sliceform.controller import ConfigurationError
from sliceform.controller.model.effects import Launch
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.testing.sim.work import SimWork

HIDDEN = "s3cret"
#: Fields in which users' values travel.
_GIVEN = frozenset({"args", "env", "kwargs", "payload", "runtime_env", "work"})


@pytest.fixture
def world(sim_fleet):
    return sim_fleet(1, 1, work_s=5.0).ready()


def submitted(world):
    """Return a run that works, with secrets wherever a user may give one."""
    options = world.fleet.options(env={"KEY": HIDDEN}, runtime_env={"env_vars": {"OTHER": HIDDEN}})
    run = options.submit(len, HIDDEN)
    world.until(lambda: run.record.active is not None)
    world.go(1.0)
    return options, run


def test_nothing_of_what_a_run_was_given_is_printed(world):
    options, run = submitted(world)
    (attempt,) = run.record.attempts
    launch = Launch("slice-1", world.shape, attempt.spec, 0)
    printed = [options, run, run.record, run.record.options, run.record.work, attempt, launch, world.fleet]
    for thing in (*printed, run.status(), run.attempts, world.fleet.status(), world.fleet.why(run.id)):
        assert HIDDEN not in repr(thing), type(thing)
        assert HIDDEN not in str(thing), type(thing)
    assert HIDDEN not in str(world.fleet.history.as_dicts())


def test_runs_and_fleets_are_printed_in_a_line(world):
    options, run = submitted(world)
    assert repr(run) == "<Run run-1: running, 1 attempt>"
    assert repr(run.record) == "<RunRecord run-1: running>"
    fleet = repr(world.fleet)
    assert fleet.startswith("<SliceController fleet-")
    assert fleet.endswith(": 1 x TpuSlice(v4-16); 1 running>")
    assert repr(options).startswith(f"<options of {fleet}: RunOptions(sizes=None, max_preemptions=100, ")
    world.over(run)
    assert repr(run) == "<Run run-1: succeeded, 1 attempt>"
    world.fleet.close()
    assert repr(world.fleet).endswith("; closed>")


def test_a_large_outcome_is_not_printed():
    text = repr(Outcome(OutcomeKind.RAISED, "ValueError", traceback="x" * 10_000, error=b"x" * 10_000))
    assert len(text) < 200
    assert len(repr(SimWork(len, ("x" * 10_000,)))) < 200


def test_what_is_wrong_with_an_environment_is_said_without_its_values(world):
    with pytest.raises(ConfigurationError, match="must be a dictionary, not a list") as refused:
        world.fleet.options(runtime_env=[HIDDEN])
    assert HIDDEN not in str(refused.value)


def test_every_field_in_which_a_users_values_travel_is_left_out():
    """Also of classes that come later."""
    found = []
    for info in pkgutil.walk_packages(sliceform.controller.__path__, "sliceform.controller."):
        if info.name.endswith("__main__") or ".demo" in info.name:
            continue
        module = importlib.import_module(info.name)
        for kind in vars(module).values():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == info.name:
                found += [
                    f"{kind.__qualname__}.{field.name}"
                    for field in dataclasses.fields(kind)
                    if kind.__dataclass_params__.repr and field.repr and field.name in _GIVEN
                ]
    assert found == []
