import pickle

import pytest

from sliceform.controller import errors
from sliceform.controller.errors import (
    BackendError,
    ClusterError,
    ConfigurationError,
    FleetClosedError,
    FleetNameTakenError,
    InsufficientSlicesError,
    RayClientError,
    RayTokenError,
    RayUnreachableError,
    RayVersionError,
    RayWorkerError,
    RunCancelled,
    RunError,
    RunFailed,
    RunPreempted,
    SliceformError,
    UnknownSliceError,
    UnpicklableFunctionError,
)

EXAMPLES = [
    ConfigurationError("slices must be 1 or more"),
    ClusterError("no"),
    RayUnreachableError("no"),
    RayClientError("no"),
    RayTokenError("no"),
    RayVersionError("no"),
    RayWorkerError("no"),
    BackendError("no"),
    FleetClosedError("closed"),
    FleetNameTakenError("prod", "driver 7"),
    InsufficientSlicesError(2, 1, {"slice-2": "no v4-16 in the cluster"}),
    UnknownSliceError("slice-9", ["slice-1"]),
    UnpicklableFunctionError("argument 'data'", "cannot pickle 'lock'"),
    RunPreempted("3 preemptions", run_id="run-1", attempts=["first"]),
    RunCancelled("cancelled", run_id="run-1"),
    RunFailed(
        "train raised",
        run_id="run-1",
        attempts=["first"],
        host="slice-1/0",
        remote_traceback="Traceback: x\n",
        exception=ZeroDivisionError("x"),
    ),
]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigurationError, ValueError),
        (ClusterError, RuntimeError),
        (FleetNameTakenError, RuntimeError),
        (FleetClosedError, RuntimeError),
        (InsufficientSlicesError, RuntimeError),
        (UnknownSliceError, KeyError),
        (UnpicklableFunctionError, TypeError),
    ],
)
def test_errors_are_also_what_python_calls_them(error, builtin):
    assert issubclass(error, builtin)


def test_one_tree():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), SliceformError)
        assert name in errors.__doc__, f"{name} is missing in the drawing"
    for error in (RayUnreachableError, RayTokenError, RayClientError, RayVersionError, RayWorkerError):
        assert issubclass(error, ClusterError)
    for error in (RunFailed, RunPreempted, RunCancelled):
        assert issubclass(error, RunError)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error):
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    kept, lost = dict(vars(error)), dict(vars(twin))
    assert repr(lost) == repr(kept)


def test_insufficient_slices_says_why_for_each():
    error = InsufficientSlicesError(3, 1, {"slice-2": "chips held by group x", "slice-3": "starting"})
    assert (error.requested, error.available) == (3, 1)
    assert str(error) == "1 of 3 slices ready:\n  slice-2: chips held by group x\n  slice-3: starting"


def test_insufficient_slices_without_reasons():
    assert str(InsufficientSlicesError(3, 1, {})) == "1 of 3 slices ready"


def test_unknown_slice_is_readable():
    assert str(UnknownSliceError("slice-9", ["slice-1", "slice-2"])) == (
        "no slice 'slice-9' in this fleet; known: slice-1, slice-2"
    )
    assert str(UnknownSliceError("slice-9")).endswith("known: none")


def test_taken_name_says_what_to_do():
    assert str(FleetNameTakenError("prod", "driver 7")) == (
        "the fleet name 'prod' is held by driver 7: close that controller first, or choose another name"
    )
    assert "held:" in str(FleetNameTakenError("prod"))


def test_unpicklable_names_the_part():
    error = UnpicklableFunctionError("argument 'data'", "cannot pickle 'lock'")
    assert error.part == "argument 'data'"
    assert str(error) == "argument 'data' cannot be pickled: cannot pickle 'lock'"


def test_failed_run_shows_the_remote_traceback():
    cause = ZeroDivisionError("division by zero")
    error = RunFailed("train raised", remote_traceback="Traceback ...\nZeroDivisionError\n", exception=cause)
    assert str(error) == "train raised\n\nTraceback ...\nZeroDivisionError"
    assert error.exception is cause
    assert str(RunFailed("its process died")) == "its process died"
