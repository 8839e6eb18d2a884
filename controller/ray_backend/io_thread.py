"""A thread with a bounded queue for calls that may wait: in order, with delays, and with nothing swallowed."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

Job = Callable[[], None]


class QueueFullError(RuntimeError):
    """More calls are waiting than the queue may hold."""


class IoThread:
    """Runs jobs one after another, each when it is due."""

    def __init__(self, name: str, limit: int) -> None:
        """Start the thread; `limit` is how many jobs may wait."""
        self._limit = limit
        self._jobs: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Job, delay_s: float = 0.0) -> None:
        """Run a job after `delay_s` seconds, after those that were due before; ignored once stopping.

        Raises:
            QueueFullError: too many wait.

        """
        with self._changed:
            if self._stopping:
                return
            if len(self._jobs) >= self._limit:
                raise QueueFullError(f"{len(self._jobs)} calls wait on {self._thread.name}")
            heapq.heappush(self._jobs, (time.monotonic() + delay_s, next(self._order), job))
            self._changed.notify()

    def stop(self, timeout_s: float) -> bool:
        """Drop what waits and end the thread; return whether it ended in time."""
        with self._changed:
            self._stopping = True
            self._jobs.clear()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:
                log.exception("job_failed", thread=self._thread.name)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._stopping:
                wait_s = self._jobs[0][0] - time.monotonic() if self._jobs else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._jobs)[2]
                self._changed.wait(wait_s)
            return None
