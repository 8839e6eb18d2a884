"""The preemption notices that stand on this host: written by the threads that watch for them, awaited by the agent."""

from __future__ import annotations

import asyncio
import threading
import time


class Standing:
    """By source, with the deadline of each, epoch seconds, or None."""

    def __init__(self) -> None:
        """Start without a notice."""
        self._lock = threading.Lock()
        self._notices: dict[str, float | None] = {}
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def now(self) -> dict[str, float | None]:
        """Return those that stand."""
        with self._lock:
            return dict(self._notices)

    def put(self, source: str, deadline_epoch_s: float | None) -> None:
        """Let a notice stand, with this deadline from now on; called on any thread."""
        with self._lock:
            self._notices[source] = deadline_epoch_s
            self._wake()

    def withdraw(self, source: str) -> None:
        """Take a notice back, if it stands; called on any thread."""
        with self._lock:
            if source in self._notices:
                del self._notices[source]
                self._wake()

    async def other_than(self, known: dict[str, float | None], within_s: float) -> dict[str, float | None]:
        """Return those that stand as soon as they differ from `known`, at the latest after `within_s` seconds."""
        end = time.monotonic() + within_s
        changed = asyncio.Event()
        entry = (asyncio.get_running_loop(), changed)
        with self._lock:
            self._waiting.add(entry)
        try:
            while (found := self.now()) == known and (left_s := end - time.monotonic()) > 0:
                try:
                    await asyncio.wait_for(changed.wait(), left_s)
                except TimeoutError:
                    break
                changed.clear()
            return found
        finally:
            with self._lock:
                self._waiting.discard(entry)

    def _wake(self) -> None:
        """Wake all who wait; a loop that is in here runs, for its waiter leaves before it ends."""
        for loop, changed in self._waiting:
            loop.call_soon_threadsafe(changed.set)
