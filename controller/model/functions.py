"""Check that calling a user's function does its work, and say its name. Pure."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from sliceform.controller.errors import ConfigurationError


def check_function(fn: Any) -> None:
    """Refuse what only makes something that somebody else would have to drive; partials are looked through.

    Raises:
        ConfigurationError: it is a coroutine function, or a generator function.

    """
    called = fn if inspect.isroutine(fn) or inspect.isclass(fn) else getattr(fn, "__call__", fn)  # noqa: B004 - the method
    name = name_of(fn)
    for what in (fn, called):
        if inspect.iscoroutinefunction(what):
            raise ConfigurationError(f"{name} is async, and nobody awaits it: submit a function that calls asyncio.run")
        if inspect.isgeneratorfunction(what) or inspect.isasyncgenfunction(what):
            raise ConfigurationError(f"{name} yields, and nobody takes what it yields: submit a function that returns")


def name_of(fn: Any) -> str:
    """Return the name of a function, without what a partial or an object holds: that may be secret."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name: str = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return name
