"""Drive a reconciler, on a thread of its own or on the caller's: ask it something, wait for it, stop it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

import structlog

from sliceform.controller.api.runner import Runner
from sliceform.controller.errors import FleetClosedError
from sliceform.controller.model.clock import Clock
from sliceform.controller.model.orders import Order
from sliceform.controller.model.status import FleetStatus
from sliceform.controller.reconcile.loop import Reconciler
from sliceform.controller.report.why import summarise_fleet

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: How long the loop may take to answer a question, seconds; a tick never waits, so this is generous.
ANSWER_S = 30.0
#: How often a long wait is reported, seconds.
_PROGRESS_S = 10.0
#: Least pause between two ticks of somebody who waits and drives the loop himself, seconds.
_PAUSE_S = 1e-3
#: How long a wait goes on at a time, seconds.
_LOOK_UP_S = 1.0


class Drive:
    """What the user's thread does with the loop."""

    def __init__(self, reconciler: Reconciler, clock: Clock, label: str) -> None:
        """Take the loop; until `start`, whoever waits drives it."""
        self.loop = reconciler
        self._clock = clock
        self._label = label
        self.runner: Runner | None = None
        self._lock = threading.Lock()
        #: Answers that somebody waits for.
        self._asked: set[Future[Any]] = set()
        self._ended = False

    @property
    def errors(self) -> int:
        """Ticks that raised on the thread."""
        return 0 if self.runner is None else self.runner.errors

    def start(self) -> None:
        """Tick on a thread of its own from now on; does nothing if it does."""
        if self.runner is None:
            self.runner = Runner(self.loop, self._label)
            self.runner.start()

    def stop(self) -> None:
        """End the thread, if there is one; whoever still waits for an answer is refused."""
        if self.runner is not None and not self.runner.stop(timeout_s=ANSWER_S):
            log.warning("loop_left_running", fleet=self._label)
        with self._lock:
            self._ended = True
            for answer in self._asked:
                answer.cancel()

    def now(self) -> float:
        """Return the time that waiting goes by, seconds.

        Beside a thread the waiting is real, whatever the fleet's clock says: an injected one may stand still.
        """
        return self._clock.monotonic() if self.runner is None else time.monotonic()

    def order(self, order: Order) -> None:
        """Have the loop take an order at its next tick."""
        self.loop.inbox.order(order)

    def leave(self, order: Order) -> None:
        """Have the loop take an order at its next tick, but wake nobody: signal handlers may call this."""
        self.loop.inbox.leave(order)

    def call(self, question: Callable[[], T]) -> T:
        """Return the loop's answer, asked on its own thread.

        Raises:
            FleetClosedError: the loop ended before it answered.

        """
        if self.runner is None or self.runner.current:
            return question()
        answer: Future[T] = Future()

        def ask() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001 - handed to the one who asked
                answer.set_exception(error)

        with self._lock:
            if self._ended:
                raise FleetClosedError
            self._asked.add(answer)
        try:
            self.loop.inbox.ask(ask)
            return answer.result(ANSWER_S)
        except CancelledError as error:
            raise FleetClosedError from error
        finally:
            with self._lock:
                self._asked.discard(answer)

    def wait_event(self, event: threading.Event, timeout_s: float | None) -> bool:
        """Wait for something that the loop will set, at most so many seconds; return whether it is."""
        if self.runner is None:
            return self.wait(lambda _: event.is_set(), timeout_s)
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        # In parts: Python deals with a signal that came just as a wait began only when that wait is over.
        while not event.wait(min(_LOOK_UP_S, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                return False
        return True

    def wait(self, done: Callable[[FleetStatus], bool], timeout_s: float | None) -> bool:
        """Wait until the status satisfies `done`, at most so many seconds; return whether it does.

        Once the loop has ended nothing changes any more, and nothing is waited for.
        """
        end = None if timeout_s is None else self.now() + timeout_s
        report = time.monotonic() + _PROGRESS_S
        while not done(self.loop.status):
            left = _PROGRESS_S if end is None else end - self.now()
            if left <= 0 or self._ended:
                return False
            if self.runner is None:
                self._clock.sleep(max(_PAUSE_S, min(left, self.loop.tick())))
                continue
            with self.loop.board.published:
                if not done(self.loop.status):
                    self.loop.board.published.wait(min(left, _LOOK_UP_S))
            if time.monotonic() >= report:
                report += _PROGRESS_S
                log.info("still_waiting", fleet=self._label, summary=summarise_fleet(self.loop.status))
        return True
