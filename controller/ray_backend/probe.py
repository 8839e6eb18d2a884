"""Confirm a suspicion: does a node's raylet still accept connections? Only a refusal is an answer.

A node that is cut off or frozen does not refuse; its silence decides.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

log = structlog.get_logger(__name__)

_TIMEOUT_S = 1.0
_THREADS = 8


class Suspicion:
    """Tries connections on a few threads of its own."""

    def __init__(self) -> None:
        """Start no thread before the first suspicion."""
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="sliceform-suspicion")

    def ask(self, raylet: tuple[str, int] | None, then: Callable[[bool], None]) -> None:
        """Call `then`, on some thread, with whether the raylet is gone beyond doubt."""
        if raylet is None:
            then(False)  # noqa: FBT003 - the verdict
            return
        try:
            self._pool.submit(lambda: then(_refuses(raylet)))
        except RuntimeError as error:  # after `stop`
            log.debug("suspicion_dropped", cause=repr(error))

    def stop(self) -> None:
        """Drop what waits; does not wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _refuses(raylet: tuple[str, int]) -> bool:
    try:
        socket.create_connection(raylet, timeout=_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return True
    except OSError as error:
        log.debug("raylet_unclear", raylet=raylet, cause=repr(error))
    return False
