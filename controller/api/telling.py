"""Tell of a fleet: why it is as it is, what comes next, and what happens as it happens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, overload

from sliceform.controller.api.closing import Closing
from sliceform.controller.follow.attempt_steps import AttemptSteps
from sliceform.controller.follow.callbacks import Callback
from sliceform.controller.follow.journal.reader import open_journal
from sliceform.controller.model.status import FleetStatus
from sliceform.controller.reconcile.decide.step import Step, WorkStep
from sliceform.controller.reconcile.place_status import FleetPlaces
from sliceform.controller.report.why import FleetWhy, Why
from sliceform.controller.report.why_now import why_fleet, why_one
from sliceform.states import AttemptRecord, Change, HistoryQueries

if TYPE_CHECKING:
    from sliceform.controller.report.serve import Server


class Telling(Closing):
    """A fleet as far as it can be asked and followed."""

    def status(self) -> FleetStatus:
        """Return the fleet as it was after the last tick: an immutable value that prints as a table."""
        return self._loop.status

    @overload
    def why(self) -> FleetWhy: ...

    @overload
    def why(self, slice_id: str) -> Why: ...

    def why(self, slice_id: str | None = None) -> Why | FleetWhy:
        """Explain a slice, a run, or why the fleet is not at its target. Reads the cluster, so it may wait.

        Args:
            slice_id: the id of a slice, also of one that is gone, or of a run; by default all slices that are not
                ready, and all runs that wait or were interrupted.

        Raises:
            UnknownSliceError: there is no such slice and no such run.

        """
        status, backend, now = self.status(), self._loop.backend, self._clock.epoch()
        if slice_id is None:
            return why_fleet(self.history, backend, status, now)
        run = self._runs.get(slice_id)
        known = status.runs if run is None else (*status.runs, run.status())
        return why_one(self.history, backend, slice_id, status=status._replace(runs=known), now=now)

    def plan(self) -> tuple[Step | WorkStep, ...]:
        """Return what the next tick would do as things stand, without doing it; empty when all is as it should be.

        Raises:
            FleetClosedError: it was closed.

        """
        self._check_open()
        drive = self._opened()
        return drive.call(drive.loop.preview)

    def places(self) -> FleetPlaces:
        """Return every place that could carry a slice of the fleet's shape, with what the cluster lacks there.

        A place is a TPU slice, by its name, or a node. Print the value for a table.
        """
        return self._opened().call(self._loop.places)

    def serve(self, port: int = 0, host: str = "127.0.0.1") -> Server:
        """Serve a page with the timeline of this fleet, which follows what happens, until it or the fleet is closed.

        It can only be read. There is no password: whoever reaches the port reads ids of nodes and texts of exceptions,
        too, which is why only this machine can unless `host` says otherwise.

        Returns:
            The server, whose `url` says where the page is.

        Raises:
            ConfigurationError: the address or the port cannot be used; says why.
            FleetClosedError: the fleet was closed.
            ClusterError, FleetNameTakenError, JournalError: it had not begun, and cannot; see `start`.

        """
        from sliceform.controller.report import serve

        def opened() -> AbstractContextManager[HistoryQueries]:
            # What a driver before this one wrote is in the file alone.
            return nullcontext(self.history) if self._journal is None else open_journal(self._journal.path)

        # A close that came between would leave a server behind.
        with self._lock:
            self._check_open()
            self._opened()
            server = serve(opened, title=self._identity.label, now=lambda _: self._clock.epoch(), host=host, port=port)
            self._servers.append(server)
        return server

    def on_change(self, fn: Callable[[Change], Any]) -> Callback:
        """Call `fn(change)` for everything that the history records from now on, in order.

        It is called on a thread of its own, soon after the change. It may take its time, raise, or call the fleet: that
        harms neither the fleet nor other callbacks. Failures are logged; what the history forgets before a slow
        function comes to it is counted and logged.

        Returns:
            What removes it: `callback.remove()`. Closing the fleet does so, too.

        Raises:
            ConfigurationError: it is not a plain function.
            FleetClosedError: it was closed.

        """
        with self._lock:
            self._check_open()
            return self._followers.call_back(fn, lambda batch: batch.changes)

    def on_attempt(self, fn: Callable[[AttemptRecord], Any]) -> Callback:
        """Call `fn(attempt)` when an attempt of a run begins, and again when it has ended; else as `on_change`.

        The end comes once more if it is charged to another budget afterwards, because its node proved to be dead.
        """
        steps = AttemptSteps(self.history.attempts.of())
        with self._lock:
            self._check_open()
            return self._followers.call_back(fn, lambda batch: steps.of(batch.attempts))
