"""What all parts of the backend share while it is open: the fleet, the sink, the I/O thread, the connection."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from sliceform.controller.errors import ClusterError
from sliceform.controller.model.backend import FleetIdentity, Sink
from sliceform.controller.model.events import Event
from sliceform.controller.ray_backend.connect import current_job
from sliceform.controller.ray_backend.io_thread import IoThread

#: What becomes of a call: its answer or its exception, never cancelled.
Answer = Future[Any]


@dataclass(frozen=True, slots=True)
class Session:
    """One fleet on one connection."""

    fleet: FleetIdentity
    sink: Sink
    io: IoThread
    #: The job of the connection that everything was created on.
    job: str

    def post(self, event: Event) -> None:
        """Report an event."""
        self.sink.post(event)

    def when_done(self, ref: Any, then: Callable[[Answer], None]) -> None:
        """Call `then` on the I/O thread once a reference has its value or error; Ray's thread only queues."""
        ref.future().add_done_callback(lambda answer: self.io.put(partial(then, answer)))

    @staticmethod
    def disregard(ref: Any) -> None:
        """Take note of what becomes of a reference that nobody will read: Ray reports errors that nobody has seen."""
        ref.future().add_done_callback(Answer.exception)

    def check(self) -> None:
        """See that the connection is the one that we began with.

        Raises:
            ClusterError: it is closed, or another one; Ray has removed what we had on the old one.

        """
        if current_job() != self.job:
            raise ClusterError("this process is connected to Ray anew: what belonged to the old connection is gone")

    @property
    def connected(self) -> bool:
        """Whether the connection is still the one that we began with."""
        try:
            self.check()
        except ClusterError:
            return False
        return True
