"""One thread for all calls that may wait for the cluster: in order, with delays, and with nothing swallowed.

All that the backend knows of lives is read and written here, so it needs no locks.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

Job = Callable[[], None]


class IoThread:
    """Runs jobs one after another, each when it is due; jobs due at the same time in the order they came."""

    def __init__(self, name: str, limit: int) -> None:
        """Take the thread's name and how many jobs `offer` may leave waiting."""
        self._limit = limit
        self._jobs: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, job: Job, delay_s: float = 0.0) -> None:
        """Run a job after `delay_s` seconds; dropped once the thread is stopping.

        Not bounded by itself: what comes here are answers, and calls that are open are bounded by the lives.
        """
        with self._changed:
            self._push(job, delay_s)

    def offer(self, job: Job) -> bool:
        """Run a job if not too many wait; return whether it was taken. Never waits."""
        with self._changed:
            if len(self._jobs) >= self._limit:
                return False
            self._push(job, 0.0)
            return True

    def stop(self, timeout_s: float) -> bool:
        """Drop what waits and end the thread; return whether it ended in time."""
        with self._changed:
            self._stopping = True
            self._jobs.clear()
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _push(self, job: Job, delay_s: float) -> None:
        if not self._stopping:
            heapq.heappush(self._jobs, (time.monotonic() + delay_s, next(self._order), job))
            self._changed.notify()

    def _run(self) -> None:
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
