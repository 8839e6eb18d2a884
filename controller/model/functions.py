"""Check that calling a user's function does its work, and say which one it is. Pure."""

from __future__ import annotations

import functools
import hashlib
import inspect
import tokenize
from contextlib import suppress
from types import CodeType
from typing import Any

from sliceform.controller.errors import ConfigurationError

#: So much of a digest tells two functions apart.
_DIGITS = 12


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
    fn = _inner(fn)
    name: str = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return name


def digest_of(fn: Any) -> str:
    """Return twelve hex digits that change with the text of a function; empty if Python shows neither it nor code."""
    fn = _inner(fn)
    call = getattr(type(fn), "__call__", None)  # noqa: B004 - the method
    code = getattr(fn, "__code__", None) or getattr(call, "__code__", None)
    if code is None:
        return ""
    return hashlib.sha256(_text_of(code).encode()).hexdigest()[:_DIGITS]


def _text_of(code: CodeType) -> str:
    # Of all that was made from strings, Python 3.13 shows the text of `python -c`.
    if code.co_filename != "<string>":
        with suppress(OSError, TypeError, SyntaxError, tokenize.TokenError):
            return inspect.getsource(code)
    # There is no file, or it is another than that which was imported.
    return repr(_plain(code))


def _inner(fn: Any) -> Any:
    """Return the function inside of partials, or of a Ray remote function, which shows it so."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(getattr(fn, "remote", None), "__wrapped__", None) or fn


def _plain(value: Any) -> Any:
    """Return code without what differs from machine to machine: the file that it is from, and where in memory it is."""
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_varnames, tuple(_plain(constant) for constant in value.co_consts)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value
