"""Put how the user's function ended into a small envelope that can travel: plain values, none of them without bound."""

from __future__ import annotations

import logging
import os
import traceback
from types import TracebackType
from typing import Any

from ray import cloudpickle

log = logging.getLogger("sliceform.on_host")

#: The most that is kept, in characters (message, traceback) or bytes (the exception itself).
_MESSAGE = 8_000
_TRACEBACK = 60_000
_ERROR = 1_000_000
#: The most classes of an exception that are named.
_TYPES = 50

Envelope = dict[str, Any]


def returned() -> Envelope:
    """Return the envelope of a function that returned."""
    return {"status": "returned", "pid": os.getpid()}


def stopped() -> Envelope:
    """Return the envelope of a process that came too late to run anything."""
    return {"status": "stopped", "pid": os.getpid()}


def failure(status: str, error: BaseException, what: str = "", *, unasked: bool = False) -> Envelope:
    """Return the envelope of `raised` or `refused`.

    Args:
        status: Which of them.
        error: What was raised.
        what: What could not be done, before the error's own words.
        unasked: It happened before the process was asked to stop.

    """
    message = f"{type(error).__name__}: {_words(error)}"
    frames = _users(error.__traceback__)
    return {
        "status": status,
        "pid": os.getpid(),
        "types": [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__[:_TYPES]],
        "message": _cut(f"{what}: {message}" if what else message, _MESSAGE),
        "traceback": _cut("".join(traceback.format_exception(type(error), error, frames)), _TRACEBACK),
        "error": _pickled(error),
        "exit_code": _exit_code(error),
        "unasked": unasked,
    }


def _users(frames: TracebackType | None) -> TracebackType | None:
    """Skip our own frames at the top, so that the first line is the user's."""
    while frames is not None and _is_ours(frames):
        frames = frames.tb_next
    return frames


def _is_ours(frame: TracebackType) -> bool:
    module = str(frame.tb_frame.f_globals.get("__name__", ""))
    return module.startswith(f"{__name__.rpartition('.')[0]}.")


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001 - whatever the user's class does
        return f"(its message cannot be had: {type(failed).__name__})"


def _exit_code(error: BaseException) -> int | None:
    """Return what the process would have ended with; None if the error is no `SystemExit`."""
    if not isinstance(error, SystemExit):
        return None
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def _cut(text: str, limit: int) -> str:
    """Keep both ends of a text that is too long."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _pickled(error: BaseException) -> bytes | None:
    """Return the exception pickled, if it survives the way; its traceback does not travel."""
    try:
        packed: bytes = cloudpickle.dumps(error)
        if len(packed) > _ERROR:
            log.info("the exception itself is too large to travel, only its traceback does: %d bytes", len(packed))
            return None
        cloudpickle.loads(packed)
    except Exception as failed:  # noqa: BLE001 - whatever the user's class does
        log.info("the exception itself cannot travel, only its traceback does: %r", failed)
        return None
    return packed
