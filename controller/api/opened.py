"""What a fleet is made of in its driver: made at once, and connected to the cluster when it begins."""

from __future__ import annotations

import atexit
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

from sliceform.controller.api.driver import Drive
from sliceform.controller.api.run import Run
from sliceform.controller.api.termination import TERMINATION, Charge
from sliceform.controller.errors import ConfigurationError, FleetClosedError
from sliceform.controller.follow.followers import Followers
from sliceform.controller.follow.journal.history import JournalHistory
from sliceform.controller.follow.journal.tally import Wish
from sliceform.controller.follow.journal.writer import JournalWriter
from sliceform.controller.follow.metrics import Seen
from sliceform.controller.follow.record.writer import EVERY_S, Recorder
from sliceform.controller.model.backend import Backend, FleetIdentity
from sliceform.controller.model.clock import Clock
from sliceform.controller.model.metrics import Metered
from sliceform.controller.model.orders import Close, Order, Submit
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.loop import Reconciler
from sliceform.states import History


class Opened(ABC):
    """Owns the parts that all of a fleet's public methods work on."""

    def __init__(
        self,
        *,
        shape: SliceShape,
        desired: Desired,
        settings: Settings,
        name: str | None,
        journal: Path | None,
        record: Path | None,
        notice_source: Callable[[], bool | float | None] | None,
        backend: Backend | None,
        clock: Clock,
    ) -> None:
        """Make all that needs no cluster."""
        self.shape = shape
        self.settings = settings
        limit = settings.history_limit
        self.history: History = History(limit) if journal is None else JournalHistory(limit, journal)
        self._clock = clock
        self._backend = backend
        incarnation = uuid.uuid4().hex[:8]
        label = name or f"fleet-{incarnation}"
        self._identity = FleetIdentity(name, label, incarnation, shape, settings, notice_source)
        self._ledger = Ledger.begin(shape, desired, settings, self.history, seed=int(incarnation, 16))
        self._desired = desired
        self._wish = Wish(clock.epoch(), desired.sizes, desired.spares)
        self._journal = None if journal is None else self._writer(journal)
        self._recorder = None if record is None else Recorder(record)
        #: Those that are not over, by id; and how many there were.
        self._runs: dict[str, Run] = {}
        self._submitted = 0
        self._lock = threading.RLock()
        #: Those who see all that is recorded; they begin when the fleet does.
        self._followers = Followers(self.history, self._ledger.published, label)
        self._drive: Drive | None = None
        self._closed = False
        self._charge = Charge(tell=self._tell, close=self.close, ticks=self._ticks, grace_s=settings.close_grace_s)

    def start(self) -> Self:
        """Connect and begin to converge, on a thread of its own; does nothing if it has begun.

        Raises:
            ClusterError: the cluster cannot be reached or used.
            FleetNameTakenError: another controller holds the name.
            FleetClosedError: it was closed.
            JournalError: the journal cannot be used; nothing was asked of the cluster.

        """
        with self._lock:
            self._check_open()
            self._opened().start()
        return self

    @abstractmethod
    def close(self, grace_s: float | None = None) -> None:
        """Give everything back; see `Closing`."""

    def _opened(self) -> Drive:
        """Return what drives the loop, after having connected to the cluster if that was not done yet."""
        with self._lock:
            if self._drive is None:
                self._check_open()
                self._drive = self._open()
                self._followers.start()
                atexit.register(self._close_at_exit)
                TERMINATION.watch(self._charge)
                self._measure(self._drive)
            return self._drive

    def _open(self) -> Drive:
        backend = self._backend
        if backend is None:
            from sliceform.controller.ray_backend import RayBackend

            backend = RayBackend()
        identity = self._identity
        seed = int(identity.incarnation, 16)
        if self._journal is not None:
            self._resume(self._journal)
        try:
            reconciler = Reconciler(
                self._ledger,
                backend,
                self._clock,
                label=identity.label,
                run_of=self._record_of,
                record=None if self._recorder is None else self._recorder.take,
            )
            if self._recorder is not None:
                self._recorder.open(self._ledger, seed=seed, monotonic=reconciler.begun_at)
            backend.open(identity, reconciler)
        except BaseException:
            if self._journal is not None:
                self._journal.close(self._clock.epoch())
            if self._recorder is not None:
                self._recorder.close()
            raise
        if self._journal is not None:
            self._followers.add(self._journal.write, "journal")
        if self._recorder is not None:
            self._followers.add(self._recorder.write, "record", every_s=EVERY_S)
        return Drive(reconciler, self._clock, identity.label)

    def _writer(self, path: Path) -> JournalWriter:
        return JournalWriter(path, self.history, limit=self.settings.journal_limit, wish=lambda: self._wish)

    def _resume(self, journal: JournalWriter) -> None:
        """Take the journal over, and go on with its numbers."""
        identity = self._identity
        shape = str(self.shape)
        self._wish = self._wish._replace(at=self._clock.epoch())
        resumed = journal.open(identity.label, identity.incarnation, shape, self._clock.epoch())
        self.history.resume(resumed.last_seq, resumed.latest_at, resumed.attempts)
        self._ledger.fleet.next_number = resumed.next_slice
        self._submitted = resumed.next_run - 1

    def _measure(self, drive: Drive) -> None:
        """Begin to measure, if the backend has somewhere to put it."""
        backend, loop = drive.loop.backend, drive.loop
        if self.settings.metrics and isinstance(backend, Metered):
            self._followers.measure(backend.meter(), lambda: Seen(loop.status, loop.take_ticks(), drive.errors))

    def _record_of(self, order: Submit) -> RunRecord:
        return self._runs[order.run_id].record

    @property
    def _loop(self) -> Reconciler:
        return self._opened().loop

    def _order(self, order: Order) -> None:
        with self._lock:
            self._check_open()
            self._opened().order(order)

    def _check_open(self) -> None:
        if self._closed:
            raise FleetClosedError

    def _ticks(self) -> bool:
        return self._drive is not None and self._drive.runner is not None

    def _tell(self, grace_s: float | None) -> None:
        """Tell work to stop, from a signal handler."""
        if self._drive is not None:
            self._drive.leave(Close(self.settings.close_grace_s if grace_s is None else grace_s))

    def _close_at_exit(self) -> None:
        self.close(grace_s=TERMINATION.grace_s(SystemExit))


def not_negative(name: str, seconds: float) -> float:
    """Return a time that a user gave; one that is none is refused."""
    if not seconds >= 0:
        raise ConfigurationError(f"{name} must be 0 seconds or more, not {seconds!r}")
    return seconds
