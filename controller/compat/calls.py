"""One call to a host: checked and pickled at once, and put together with those to the other hosts of its slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.model.variables import check_variables
from sliceform.controller.on_host.own_call import run_own_call
from sliceform.controller.on_host.parcel import Parcel
from sliceform.controller.ray_backend.pack import pack

#: What the old executor puts where its driver knows nothing; it would hide what the host knows.
_PLACEHOLDER = "EMPTY"
_PLACEHOLDERS = frozenset({"TPU_NAME", "TPU_ZONE"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it travels."""

    #: `(function, args, kwargs)`, pickled.
    work: Parcel = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    #: What its process asks for instead of all that its bundle has, by Ray resource.
    resources: Mapping[str, float]
    runtime_env: Mapping[str, Any] = field(repr=False)


def make_call(
    shape: SliceShape,
    remote_fn: Any,
    *,
    f_args: tuple[Any, ...] = (),
    f_kwargs: Mapping[str, Any] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    env: Mapping[str, Any] | None = None,
    num_cpus: float | None = None,
    memory_bytes: float | None = None,
    extra_resources: Mapping[str, float] | None = None,
) -> Call:
    """Check a call and pickle it.

    Args:
        shape: of the slice that is called.
        remote_fn: a callable, or a Ray remote function, whose own options hold unless an argument says otherwise.
        f_args: positional arguments of the function.
        f_kwargs: named arguments of the function.
        runtime_env: a Ray runtime environment.
        env: variables of the function's process, set before it is unpickled; those that are None are left out.
        num_cpus: CPUs of the host that the process takes; by default all that the slice has reserved there.
        memory_bytes: memory that it takes, bytes.
        extra_resources: further resources that it takes.

    Raises:
        ConfigurationError: it asks for more than a host of the slice has, has options that cannot be honoured, or a
            variable that no environment can hold.
        UnpicklableFunctionError: naming the part that cannot be pickled.

    """
    packed = pack(remote_fn, tuple(f_args), f_kwargs or {}, shape)
    asked = dict(packed.resources)
    asked.update(extra_resources or {})
    asked.update({name: amount for name, amount in (("CPU", num_cpus), ("memory", memory_bytes)) if amount is not None})
    for name, amount in asked.items():
        if amount > shape.bundle.get(name, 0):
            raise ConfigurationError(
                f"the call asks for {amount:g} {name}, but a host of this pool has {shape.bundle.get(name, 0):g}: "
                f"ask for less, or give the pool a shape that reserves more"
            )
    environment = dict(packed.runtime_env or {}) | dict(runtime_env or {})
    environment = {key: value for key, value in environment.items() if value}
    texts = {str(key): str(value) for key, value in _own(env or {}, runtime_env or {}).items()}
    variables = check_variables("env", texts)
    return Call(packed.payload, variables, asked, environment)


def _own(env: Mapping[str, Any], runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what old executors put into the variables by mistake.

    That is: nothing at all, placeholders, and the runtime environment's own fields, printed as text.
    """
    return {
        key: value
        for key, value in env.items()
        if value is not None
        and not (key in _PLACEHOLDERS and value == _PLACEHOLDER)
        and not (key in runtime_env and str(value) == str(runtime_env[key]))
    }


def join(calls: Mapping[int, Call]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return what to submit to a slice for these calls, by host rank: a function and its arguments."""
    works = list(dict.fromkeys(call.work for call in calls.values()))
    own = {rank: (dict(call.env), works.index(call.work)) for rank, call in calls.items()}
    resources = dict(next(iter(calls.values())).resources)
    if not resources:
        return run_own_call, (own, works)
    options: dict[str, Any] = {"max_calls": 1, "max_retries": 0}
    for name, option in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")):
        if name in resources:
            options[option] = resources.pop(name)
    return ray.remote(resources=resources, **options)(run_own_call), (own, works)


def agree(call: Call, others: Mapping[int, Call]) -> None:
    """Refuse a call that cannot run together with those made to the other hosts of its slice.

    Raises:
        ConfigurationError: it asks for another runtime environment or other resources.

    """
    for rank, other in others.items():
        if call.resources != other.resources:
            raise ConfigurationError(
                f"calls to the hosts of one slice run together, so their resources must be the same; host {rank} was"
                f" called with {dict(other.resources)}, this one with {dict(call.resources)}"
            )
        if call.runtime_env != other.runtime_env:
            unlike = {key for key, _ in {*_texts(call.runtime_env)} ^ {*_texts(other.runtime_env)}}
            raise ConfigurationError(
                f"calls to the hosts of one slice run together, so their runtime_env must be the same; that of host"
                f" {rank} and this one differ in {', '.join(sorted(unlike))}"
            )


def _texts(runtime_env: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, repr(value)) for key, value in runtime_env.items()]
