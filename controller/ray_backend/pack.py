"""Make the user's function travel: pickled once, on the user's thread, with every part that cannot be named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ray
from ray import cloudpickle

from sliceform.controller.errors import ConfigurationError, UnpicklableFunctionError
from sliceform.controller.ray_backend import private
from sliceform.controller.spec import SliceShape

#: Larger work is put into the object store once instead of going along with every host's task, bytes.
_INLINE = 64 * 1024
#: What a Ray remote function may ask for.
_HONOURED = frozenset({"num_cpus", "num_gpus", "memory", "resources", "runtime_env"})
#: Options that say what is so here anyhow.
_GIVEN = {"max_calls": 1, "max_retries": 0, "num_returns": 1}


class Packed(NamedTuple):
    """Pickled work."""

    #: The bytes, or a reference to them.
    data: Any
    #: What the user's remote function asked for.
    options: Mapping[str, Any]

    def argument(self) -> Any:
        """Return it as an argument of a task."""
        return self.data


def pack(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], shape: SliceShape) -> Packed:
    """Pickle a function with its arguments.

    Raises:
        UnpicklableFunctionError: naming the function or the argument that cannot be pickled.
        ConfigurationError: it is a remote function that asks for what a host of this shape does not have.

    """
    options: Mapping[str, Any] = {}
    parts = private.remote_function_parts(fn)
    if parts is not None:
        fn, asked = parts
        options = _check_options(asked, shape)
    if not callable(fn):
        raise ConfigurationError(f"the work must be a function, not {fn!r}")
    try:
        data = cloudpickle.dumps((fn, args, dict(kwargs)))
    except Exception as error:
        raise UnpicklableFunctionError(*_culprit(fn, args, kwargs, error)) from error
    return Packed(data if len(data) <= _INLINE else ray.put(data), options)


def _culprit(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> tuple[str, str]:
    named = [(f"argument {index}", value) for index, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        if (failure := _failure(value)) is not None:
            return name, str(failure)
    name = getattr(fn, "__qualname__", repr(fn))
    variables = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    for variable, cell in zip(variables, getattr(fn, "__closure__", None) or (), strict=False):
        if (failure := _failure(cell.cell_contents)) is not None:
            return f"function {name}, which uses {variable!r}", str(failure)
    return f"function {name}", str(error)


def _failure(value: Any) -> Exception | None:
    try:
        cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever the user's objects raise
        return error
    return None


def _check_options(asked: Mapping[str, Any], shape: SliceShape) -> Mapping[str, Any]:
    """Honour what fits into a host of the shape; refuse the rest by name."""
    asked = {name: value for name, value in asked.items() if value is not None and value != {}}
    given = {name for name, value in _GIVEN.items() if asked.get(name) == value}
    unknown = sorted(set(asked) - _HONOURED - given)
    if unknown:
        raise ConfigurationError(
            f"the remote function sets {', '.join(unknown)}, which a fleet decides; give a plain function instead"
        )
    bundle = shape.bundle
    wants = {"CPU": asked.get("num_cpus", 0), "GPU": asked.get("num_gpus", 0), "memory": asked.get("memory", 0)}
    wants |= asked.get("resources", {})
    for name, amount in wants.items():
        if amount > bundle.get(name, 0):
            raise ConfigurationError(
                f"the remote function asks for {amount:g} {name}, a host of this shape has {bundle.get(name, 0):g}"
            )
    return {name: value for name, value in asked.items() if name in _HONOURED}
