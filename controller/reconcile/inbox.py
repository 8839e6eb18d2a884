"""Where everything that comes from other threads waits for the loop: events, and requests of the user's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from sliceform.controller.model.events import Event


class Inbox:
    """Any thread puts in, the loop's thread takes out.

    Its length is bounded by what is outstanding: a backend has a fixed number of answers to give per life, and reports
    the node table on a timer.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._events: deque[Event] = deque()
        self._requests: deque[Callable[[], Any]] = deque()
        self._wake = threading.Event()

    def post(self, event: Event) -> None:
        """Put an event in and wake the loop."""
        self._events.append(event)
        self._wake.set()

    def ask(self, request: Callable[[], Any]) -> None:
        """Put in something to be called on the loop's thread, and wake it."""
        self._requests.append(request)
        self._wake.set()

    def leave(self, request: Callable[[], Any]) -> None:
        """Put in something to be called on the loop's thread, without a lock and without waking it."""
        self._requests.append(request)

    def wake(self) -> None:
        """Wake the loop."""
        self._wake.set()

    def wait(self, timeout_s: float) -> None:
        """Wait until something comes in, at most `timeout_s` seconds."""
        self._wake.wait(timeout_s)

    def take(self) -> tuple[list[Event], Iterator[Callable[[], Any]]]:
        """Take all events out, oldest first, and each request when it comes to it: what a failure leaves stays in."""
        self._wake.clear()
        events = [self._events.popleft() for _ in range(len(self._events))]
        return events, (self._requests.popleft() for _ in range(len(self._requests)))
