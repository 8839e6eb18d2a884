"""Give everything back that a fleet has, whatever fails meanwhile, within a bound."""

from __future__ import annotations

import atexit
import math
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import structlog

from sliceform.controller.api.driver import Drive
from sliceform.controller.api.opened import not_negative
from sliceform.controller.api.run import Run
from sliceform.controller.api.termination import TERMINATION
from sliceform.controller.api.work import Work
from sliceform.controller.model.orders import Close
from sliceform.controller.model.status import FleetStatus
from sliceform.controller.reconcile.decide.schedule import startable

if TYPE_CHECKING:
    from sliceform.controller.report.serve import Server

log = structlog.get_logger(__name__)

#: Beyond the grace, how long `close` waits for groups to be seen removed, seconds.
_RELEASE_S = 20.0
#: How often whoever leaves the body of a fleet looks whether a run can still start, seconds.
_LOOK_S = 1.0
#: How long those who follow the history may take to finish, all together, seconds.
_FOLLOW_S = 5.0
#: How much longer than that the end of what is ours may take, seconds: the loop, the backend and those who follow.
_END_S = 60.0


class Closing(Work):
    """A fleet as far as it comes to an end."""

    #: Who closes it; by when its work has to have stopped, by the clock of `Drive.now`.
    _closer: threading.Thread | None = None
    _close_by = math.inf

    def __init__(self, **parts: Any) -> None:
        """Take what it is made of."""
        super().__init__(**parts)
        self._servers: list[Server] = []
        #: Whether all is over.
        self._over = threading.Event()

    def close(self, grace_s: float | None = None) -> None:
        """Cancel what runs, let go of everything, and stop; bounded in time.

        May be called again, on any thread: it waits for the close that is under way, which ends sooner if this one
        gives less time. In a callback it does not wait. Once all is over it does nothing.

        Args:
            grace_s: how long work that runs may go on to checkpoint, seconds; by default `settings.close_grace_s`.

        """
        grace = self.settings.close_grace_s if grace_s is None else not_negative("grace_s", grace_s)
        with self._lock:
            self._closed = True
            drive, closer = self._drive, self._closer
            if drive is None:
                return
            if closer is None:
                self._closer = threading.current_thread()
            self._close_by = min(self._close_by, drive.now() + grace)
            drive.order(Close(grace))
        if closer is None:
            self._give_back(drive)
        elif closer is not threading.current_thread() and not self._followers.current:
            self._over.wait(max(0.0, self._close_by - drive.now()) + _RELEASE_S + _END_S)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the runs that were submitted, or cancel them after an exception; then close.

        Those that can no longer start, as the fleet was made too small for them, are cancelled: a program that ends
        would wait for ever.
        """
        try:
            if kind is None:
                for run in list(self._runs.values()):
                    self._see_off(run)
        except BaseException as interrupted:
            kind = type(interrupted)
            raise
        finally:
            self.close(grace_s=TERMINATION.grace_s(kind))

    def _see_off(self, run: Run) -> None:
        """Wait for a run; cancel it if it never starts any more."""
        while not run.wait(_LOOK_S):
            record = run.record
            if record.waiting and record.sizes and not startable(self._ledger.fleet, record):
                log.warning("run_never_starts", fleet=self._identity.label, run=run.id, why=run.status().detail)
                run.cancel()
                run.wait()

    def _give_back(self, drive: Drive) -> None:
        """Wait until all is given back, and end all that is ours: each part, whatever becomes of the others."""
        with ExitStack() as ends:
            ends.callback(self._over.set)
            ends.callback(atexit.unregister, self._close_at_exit)
            ends.callback(TERMINATION.unwatch, self._charge)
            if (journal := self._journal) is not None:
                ends.callback(lambda: journal.close(self._clock.epoch()))
            if self._recorder is not None:
                ends.callback(self._recorder.close)
            for server in self._servers:
                ends.callback(server.close)
            ends.callback(self._followers.stop, _FOLLOW_S)
            ends.callback(self._conclude_all)
            ends.callback(drive.loop.backend.close)
            ends.callback(drive.stop)
            try:
                self._await_release(drive)
            except BaseException as error:
                if TERMINATION.grace_s(type(error)) is None:
                    # SIGTERM came in the midst: it takes nothing of the time that work has.
                    self._await_release(drive)
                raise

    def _await_release(self, drive: Drive) -> None:
        def over(status: FleetStatus) -> bool:
            return self._given_back(status) or drive.now() >= self._close_by + _RELEASE_S

        drive.wait(over, None)
        if not self._given_back(drive.loop.status):
            left = [f"{row.id} ({row.state})" for row in drive.loop.status.slices]
            log.warning("close_incomplete", fleet=self._identity.label, slices=left)

    def _given_back(self, status: FleetStatus) -> bool:
        """Whether all slices are gone, and no more will come: before the close was taken in, a tick may create some."""
        return self._ledger.fleet.closing_by is not None and not status.slices
