"""How one run is to be treated, checked before anything is submitted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.model.sizes import parse_sizes
from sliceform.controller.model.variables import check_variables

#: Classes of exceptions, with their subclasses, and exit codes of `sys.exit`.
Causes = Iterable[type[BaseException] | int]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How one run is to be treated."""

    #: Valid sizes, ascending; None = the fleet's own.
    sizes: tuple[int, ...] | None = None
    #: Restarts allowed after preemption, and after failure.
    max_preemptions: int = 100
    max_failures: int = 0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    runtime_env: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Exit codes, and names of exception classes, by which a failure is charged as a preemption, and by which it ends
    #: the run.
    retry_on: frozenset[int | str] = frozenset()
    never_retry_on: frozenset[int | str] = frozenset()
    #: Ids of the very slices it is for; it waits for these alone, and nobody waits behind it. None = any.
    pinned: tuple[str, ...] | None = None
    #: Higher goes first.
    priority: int = 0
    #: How long it may wait for slices each time, and go on in all since it was submitted, seconds; None = for ever.
    max_wait_s: float | None = None
    timeout_s: float | None = None

    @property
    def told(self) -> str:
        """All of it for people; of environments the names alone, for the values may be secret."""
        sizes = "the fleet's sizes" if self.sizes is None else f"{' or '.join(map(str, self.sizes))} slices"
        budgets = f"max_preemptions {self.max_preemptions}; max_failures {self.max_failures}"
        others = {name: getattr(self, name) for name in ("retry_on", "never_retry_on", "env", "runtime_env", "pinned")}
        given = [f"{name} {', '.join(sorted(map(str, value)))}" for name, value in others.items() if value]
        limits = {"priority": self.priority, "max_wait_s": self.max_wait_s, "timeout_s": self.timeout_s}
        given += [f"{name} {value:g}" for name, value in limits.items() if value]
        return "; ".join([sizes, budgets, *given])


def run_options(
    *,
    largest: int,
    slices: int | Iterable[int] | None,
    max_preemptions: int,
    max_failures: int,
    env: Mapping[str, str] | None,
    runtime_env: Mapping[str, Any] | None,
    retry_on: Causes,
    never_retry_on: Causes,
    priority: int = 0,
    max_wait_s: float | None = None,
    timeout_s: float | None = None,
) -> RunOptions:
    """Return the options of a run on a fleet whose largest size is `largest`; see `SliceController.options`.

    Raises:
        ConfigurationError: one of them cannot work, or two contradict each other.

    """
    for name, value in (("max_preemptions", max_preemptions), ("max_failures", max_failures)):
        if type(value) is not int or value < 0:
            raise ConfigurationError(f"{name} must be a whole number, 0 or more, not {value!r}")
    if type(priority) is not int:
        raise ConfigurationError(f"priority must be a whole number, not {priority!r}")
    for name, limit in (("max_wait_s", max_wait_s), ("timeout_s", timeout_s)):
        if limit is not None and not (type(limit) in {int, float} and limit > 0):
            raise ConfigurationError(f"{name} must be seconds above 0, or None for no limit, not {limit!r}")
    sizes = None if slices is None else parse_sizes(slices)
    if sizes is not None and sizes[0] > largest:
        raise ConfigurationError(f"the run asks for {sizes[0]} slices, the fleet aims for {largest}: scale it first")
    variables = check_variables("env", {} if env is None else env)
    _check_environments(variables, runtime_env)
    retry, never = _rules("retry_on", retry_on), _rules("never_retry_on", never_retry_on)
    return RunOptions(
        sizes,
        max_preemptions,
        max_failures,
        variables,
        runtime_env,
        retry,
        never,
        priority=priority,
        max_wait_s=max_wait_s,
        timeout_s=timeout_s,
    )


def _check_environments(env: Mapping[str, str], runtime_env: Mapping[str, Any] | None) -> None:
    if not isinstance(runtime_env, Mapping | None):
        raise ConfigurationError(f"runtime_env must be a dictionary, not a {type(runtime_env).__name__}")
    variables = check_variables("runtime_env's env_vars", (runtime_env or {}).get("env_vars") or {})
    unlike = sorted(name for name in variables if name in env and variables[name] != env[name])
    if unlike:
        names = ", ".join(unlike)
        raise ConfigurationError(f"env and runtime_env's env_vars have different values for {names}: give one of them")


def _rules(name: str, causes: Causes) -> frozenset[int | str]:
    """Return exit codes as they are, and exception classes as hosts name them."""
    rules: set[int | str] = set()
    for cause in causes:
        if isinstance(cause, type) and issubclass(cause, BaseException):
            rules.add(f"{cause.__module__}.{cause.__qualname__}")
        elif type(cause) is int:
            rules.add(cause)
        else:
            raise ConfigurationError(f"{name} takes exception classes and exit codes, not {cause!r}")
    return frozenset(rules)
