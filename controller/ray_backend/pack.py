"""Make work travel: pickle function and arguments once, and read the options of a Ray remote function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from sliceform.controller.errors import ConfigurationError, UnpicklableFunctionError
from sliceform.controller.model.functions import check_function, name_of
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.model.variables import check_variables
from sliceform.controller.on_host.parcel import Parcel, with_values, wrap
from sliceform.controller.ray_backend import private

_RESOURCE_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
#: Options that say nothing else than what holds anyway, by their values that do so.
_GIVEN: Mapping[str, tuple[Any, ...]] = {
    "max_calls": (0, 1),
    "max_retries": (0,),
    "num_returns": (1, None),
    "retry_exceptions": (False, None),
    "scheduling_strategy": (None, "DEFAULT"),
}
_ADVICE: Mapping[str, str] = {
    "max_retries": "use max_failures and max_preemptions of fleet.options(...)",
    "retry_exceptions": "use max_failures of fleet.options(...)",
    "scheduling_strategy": "the fleet's shape decides where it runs",
    "label_selector": "the fleet's shape decides where it runs",
    "accelerator_type": "use the shape's label_selector, with the label ray.io/accelerator-type",
}


@dataclass(frozen=True, slots=True)
class Packed:
    """Work as it travels."""

    #: Function, arguments and keyword arguments, pickled together.
    payload: Parcel = field(repr=False)
    #: What its host tasks ask for instead of what their bundle has of the same Ray resource.
    resources: Mapping[str, float]
    runtime_env: Mapping[str, Any] | None = field(default=None, repr=False)


def pack(
    fn: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    shape: SliceShape,
    run_env: Mapping[str, Any] | None = None,
) -> Packed:
    """Pickle the work, on the user's thread; `run_env` is the runtime environment that its run has anyway.

    Raises:
        UnpicklableFunctionError: naming the part that cannot be pickled.
        ConfigurationError: `fn` cannot be run, or has options that cannot be honoured.

    """
    parts = private.remote_parts(fn)
    function, options = (fn, {}) if parts is None else parts
    if parts is None and (not callable(fn) or hasattr(fn, "remote")):
        hint = "; give options in the decorator, not through .options()" if hasattr(fn, "remote") else ""
        raise ConfigurationError(f"{fn!r} is neither a callable nor a Ray remote function{hint}")
    check_function(function)
    resources, runtime_env = _honour(options, shape)
    if runtime_env and run_env and runtime_env != run_env:
        unlike = sorted(key for key in {*runtime_env, *run_env} if runtime_env.get(key) != run_env.get(key))
        raise ConfigurationError(
            "the remote function and fleet.options(...) have different runtime environments "
            f"({', '.join(unlike)}): give one of them, with all that is needed"
        )
    _check_environment(run_env or runtime_env)
    if parts is not None and any(isinstance(argument, ray.ObjectRef) for argument in (*args, *kwargs.values())):
        work = (with_values, (function, *args), dict(kwargs))
    else:
        work = (function, args, dict(kwargs))
    try:
        payload = wrap(work)
    except Exception as error:
        raise _unpicklable(error, function, args, kwargs) from error
    return Packed(payload, resources, runtime_env)


def _honour(options: Mapping[str, Any], shape: SliceShape) -> tuple[dict[str, float], Mapping[str, Any] | None]:
    """Return the resources and the runtime environment that a remote function asks for."""
    bundle = shape.bundle
    asked: dict[str, float] = {}
    for option, value in options.items():
        if option in _RESOURCE_OPTIONS:
            if value is not None:
                asked[_RESOURCE_OPTIONS[option]] = value
        elif option == "resources":
            asked.update(value or {})
        elif option not in {"runtime_env", "name"} and value not in _GIVEN.get(option, ()):
            advice = _ADVICE.get(option, "remove it")
            raise ConfigurationError(f"the remote function's option {option}={value!r} cannot be honoured: {advice}")
    for name, amount in asked.items():
        if amount > bundle.get(name, 0):
            raise ConfigurationError(
                f"the remote function asks for {amount:g} {name}, but a host of this fleet has "
                f"{bundle.get(name, 0):g}: ask for more in the shape, or for less in the function"
            )
    return asked, options.get("runtime_env") or None


def _check_environment(runtime_env: Mapping[str, Any] | None) -> None:
    """Refuse now what Ray would refuse when the tasks are submitted, on a thread that nobody listens to."""
    if not runtime_env:
        return
    try:
        ray.remote(lambda: None).options(runtime_env=runtime_env)
    except Exception as error:
        keys = ", ".join(sorted(runtime_env))
        raise ConfigurationError(
            f"Ray does not take the runtime environment ({keys}): {error} "
            "(give a folder of this machine to ray.init(runtime_env=...), which uploads it)"
        ) from error
    check_variables("runtime_env's env_vars", runtime_env.get("env_vars") or {})


def _unpicklable(
    error: Exception, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> UnpicklableFunctionError:
    for part, value in _parts(function, args, kwargs):
        try:
            wrap(value)
        except Exception as found:  # noqa: BLE001 - whatever the user's classes raise
            return UnpicklableFunctionError(part, str(found) or repr(found))
    return UnpicklableFunctionError("the work as a whole", str(error) or repr(error))


def _parts(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    who = f"the function {name_of(function)}"
    variables = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for variable, cell in zip(variables, getattr(function, "__closure__", None) or (), strict=False):
        yield f"{variable!r}, which {who} uses,", cell.cell_contents
    yield who, function
    for index, value in enumerate(args):
        yield f"argument {index + 1}", value
    for name, value in kwargs.items():
        yield f"argument {name!r}", value
