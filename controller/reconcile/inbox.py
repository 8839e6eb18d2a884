"""Where everything that comes from other threads waits for the loop: beats, events, orders, and questions."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from sliceform.controller.model.events import Event
from sliceform.controller.model.orders import Order
from sliceform.controller.reconcile.inputs import Beat, Inputs

#: Beats that are kept: a loop that stood still for so long that more came has no use for the oldest.
_BEATS_KEPT = 100_000


class Inbox:
    """Any thread puts in, the loop's thread takes out.

    Its length is bounded by what is outstanding: a backend has a fixed number of answers to give per life, and reports
    the node table on a timer.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._beats: deque[Beat] = deque(maxlen=_BEATS_KEPT)
        self._events: deque[Event] = deque()
        self._orders: deque[Order] = deque()
        self._questions: deque[Callable[[], Any]] = deque()
        self._wake = threading.Event()

    def beat(self, beat: Beat) -> None:
        """Put in that an agent was heard; wakes nobody."""
        self._beats.append(beat)

    def post(self, event: Event) -> None:
        """Put an event in and wake the loop."""
        self._events.append(event)
        self._wake.set()

    def order(self, order: Order) -> None:
        """Put an order in and wake the loop."""
        self._orders.append(order)
        self._wake.set()

    def leave(self, order: Order) -> None:
        """Put an order in without a lock and without waking the loop: signal handlers may call this."""
        self._orders.append(order)

    def ask(self, question: Callable[[], Any]) -> None:
        """Put in something that reads what the loop knows, to be called on its thread, and wake it."""
        self._questions.append(question)
        self._wake.set()

    def wake(self) -> None:
        """Wake the loop."""
        self._wake.set()

    def wait(self, timeout_s: float) -> None:
        """Wait until something comes in, at most `timeout_s` seconds."""
        self._wake.wait(timeout_s)

    def take(self, monotonic: float, epoch: float) -> Inputs:
        """Take out what came in until these times, oldest first."""
        self._wake.clear()
        return Inputs(monotonic, epoch, _all(self._beats), _all(self._events), _each(self._orders))

    def questions(self) -> Iterator[Callable[[], Any]]:
        """Take out each question when it comes to it: what a failure leaves stays in."""
        return _each(self._questions)


def _all(queue: deque[Any]) -> list[Any]:
    return [queue.popleft() for _ in range(len(queue))]


def _each(queue: deque[Any]) -> Iterator[Any]:
    return (queue.popleft() for _ in range(len(queue)))
