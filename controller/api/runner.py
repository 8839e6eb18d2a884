"""The thread that ticks: sleeps until something comes in or falls due, and never dies silently."""

from __future__ import annotations

import threading

import structlog

from sliceform.controller.reconcile.loop import Reconciler

log = structlog.get_logger(__name__)

#: Pause after a tick that raised, seconds: long enough not to spin, short enough to go on.
_AFTER_ERROR_S = 0.5


class Runner:
    """Drives a reconciler on a thread of its own."""

    def __init__(self, reconciler: Reconciler, name: str) -> None:
        """Make the thread; it does not run yet."""
        self._reconciler = reconciler
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"sliceform-{name}", daemon=True)
        #: Ticks that raised.
        self.errors = 0

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the tick that is under way; return whether it ended in time."""
        self._stopping.set()
        self._reconciler.inbox.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                wait_s = self._reconciler.tick()
            except Exception:
                self.errors += 1
                log.exception("tick_failed", tick=self._reconciler.ledger.tick, errors=self.errors)
                wait_s = _AFTER_ERROR_S
                self._stopping.wait(wait_s)
                continue
            self._reconciler.inbox.wait(wait_s)
