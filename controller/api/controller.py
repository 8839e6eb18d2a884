"""`SliceController`: what users embed in their driver process."""

from __future__ import annotations

import atexit
import math
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import structlog

from sliceform.controller.api.driver import Drive
from sliceform.controller.api.run import Run, RunOwner, RunResult
from sliceform.controller.api.termination import TERMINATION, Charge
from sliceform.controller.errors import (
    ConfigurationError,
    FleetClosedError,
    InsufficientSlicesError,
    UnknownSliceError,
)
from sliceform.controller.follow.attempt_steps import AttemptSteps
from sliceform.controller.follow.callbacks import Callback
from sliceform.controller.follow.followers import Followers
from sliceform.controller.follow.journal.history import JournalHistory
from sliceform.controller.follow.journal.reader import open_journal
from sliceform.controller.follow.journal.tally import Wish
from sliceform.controller.follow.journal.writer import JournalWriter
from sliceform.controller.follow.metrics import Metered, Seen
from sliceform.controller.model.backend import Backend, FleetIdentity
from sliceform.controller.model.clock import Clock, SystemClock
from sliceform.controller.model.run_options import Causes, RunOptions, run_options
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import Desired, SliceShape, parse_sizes
from sliceform.controller.on_host.environment import OURS
from sliceform.controller.reconcile.decide.run import Ended, RunRecord
from sliceform.controller.reconcile.decide.step import Step
from sliceform.controller.reconcile.ledger import Fleet
from sliceform.controller.reconcile.loop import Reconciler
from sliceform.controller.reconcile.place_status import FleetPlaces
from sliceform.controller.reconcile.status import FleetStatus, RunStatus, SliceStatus, run_status
from sliceform.controller.report.why import FleetWhy, Why
from sliceform.controller.report.why_now import why_fleet, why_one
from sliceform.states import AttemptRecord, Change, History, HistoryQueries

if TYPE_CHECKING:
    from sliceform.controller.report.serve import Server

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
#: Beyond the grace, how long `close` waits for groups to be seen removed, seconds.
_RELEASE_S = 20.0
#: How long those who follow the history may take to finish, all together, seconds.
_FOLLOW_S = 5.0
#: How much longer than that the end of what is ours may take, seconds: the loop, the backend and those who follow.
_END_S = 60.0


class SliceController:
    """Keeps a fleet of slices alive and runs functions on all of their hosts.

    Use it as a context manager: leaving the body waits for the runs that were submitted, an exception cancels them, and
    either way everything that was reserved is let go.
    """

    def __init__(
        self,
        shape: SliceShape,
        slices: int | Iterable[int] = 1,
        *,
        spares: int = 0,
        name: str | None = None,
        settings: Settings | None = None,
        journal: str | os.PathLike[str] | None = None,
        notice_source: Callable[[], bool | float | None] | None = None,
        backend: Backend | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Say what is wanted; nothing is asked of the cluster before `start` (or the first `step`).

        Args:
            shape: what every slice looks like.
            slices: how many, or several valid sizes such as `[2, 4, 8]`: the largest is aimed for, the largest reached
                is used.
            spares: slices to keep ready beyond the size.
            name: guards against a second controller with the same name on one cluster; without it there is no guard.
            settings: times and limits; by default from the environment.
            journal: file that the history is written to, for `sliceform history` and `open_journal`; one that exists
                is continued. By default there is none.
            notice_source: called on every host every `settings.notice_every_s` seconds, on a thread, as one more source
                of preemption notices: None or False is no notice, True one without a deadline, a number its deadline in
                epoch seconds. What it raises is logged there and changes nothing. It is pickled by `start`, which
                raises `UnpicklableFunctionError` if that cannot be done; simulated hosts do not call it.
            backend: where slices come from; by default the process's Ray connection, else `ray.init(address="auto")`.
            clock: the time; by default the machine's.

        Raises:
            ValueError: one of them cannot work.

        """
        if not isinstance(shape, SliceShape):
            raise ConfigurationError(f"shape must be a TpuSlice, GpuSlice or CpuSlice, not {shape!r}")
        if name is not None and not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"name {name!r} must be 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
            )
        if notice_source is not None and not callable(notice_source):
            raise ConfigurationError(f"notice_source must be a function without arguments, not {notice_source!r}")
        self.shape = shape
        self.settings = settings or Settings()
        # Resolved once: whoever changes the working directory later does not change which file is meant.
        path = None if journal is None else Path(os.path.realpath(journal))
        limit = self.settings.history_limit
        self.history: History = History(limit) if path is None else JournalHistory(limit, path)
        self._clock = clock or SystemClock()
        self._backend = backend
        incarnation = uuid.uuid4().hex[:8]
        label = name or f"fleet-{incarnation}"
        self._identity = FleetIdentity(name, label, incarnation, shape, self.settings, notice_source)
        desired = Desired(parse_sizes(slices), spares)
        self._fleet = Fleet.begin(shape, desired, self.settings, self.history, seed=int(incarnation, 16))
        self._desired = desired
        self._wish = Wish(self._clock.epoch(), desired.sizes, spares)
        self._journal = None if path is None else self._writer(path)
        self._runs: dict[str, Run] = {}
        self._submitted = 0
        self._lock = threading.RLock()
        #: Those who see all that is recorded; they begin when the fleet does.
        self._followers = Followers(self.history, self._fleet.published, self._identity.label)
        self._servers: list[Server] = []
        self._drive: Drive | None = None
        self._closed = False
        #: Who closes it; by when its work has to have stopped, by the clock of `Drive.now`; and whether all is over.
        self._closer: threading.Thread | None = None
        self._close_by = math.inf
        self._over = threading.Event()
        self._charge = Charge(tell=self._tell, close=self.close, ticks=self._ticks, grace_s=self.settings.close_grace_s)

    def __repr__(self) -> str:
        """Say what is wanted, and what there is after the last tick; asks nobody."""
        wanted = "/".join(map(str, self._desired.sizes))
        if self._closed or self._drive is None:
            there = "closed" if self._closed else "not started"
        else:
            counts = self._drive.loop.status.counts.items()
            there = ", ".join(f"{count} {state}" for state, count in counts) or "no slices"
        shape = ", ".join(map(str, self.shape.model_dump(exclude_defaults=True).values()))
        return f"<SliceController {self._identity.label}: {wanted} x {type(self.shape).__name__}({shape}); {there}>"

    # Its life.

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

    def close(self, grace_s: float | None = None) -> None:
        """Cancel what runs, let go of everything, and stop; bounded in time.

        May be called again, on any thread: it waits for the close that is under way, which ends sooner if this one
        gives less time. In a callback it does not wait. Once all is over it does nothing.

        Args:
            grace_s: how long work that runs may go on to checkpoint, seconds; by default `settings.close_grace_s`.

        """
        grace = self.settings.close_grace_s if grace_s is None else _not_negative("grace_s", grace_s)
        with self._lock:
            self._closed = True
            drive, closer = self._drive, self._closer
            if drive is None:
                return
            if closer is None:
                self._closer = threading.current_thread()
            self._close_by = min(self._close_by, drive.now() + grace)
            drive.request(lambda: self._begin_close(grace))
        if closer is None:
            self._give_back(drive)
        elif closer is not threading.current_thread() and not self._followers.current:
            self._over.wait(max(0.0, self._close_by - drive.now()) + _RELEASE_S + _END_S)

    def _give_back(self, drive: Drive) -> None:
        """Wait until all is given back, and end all that is ours: each part, whatever becomes of the others."""
        with ExitStack() as ends:
            ends.callback(self._over.set)
            ends.callback(atexit.unregister, self._close_at_exit)
            ends.callback(TERMINATION.unwatch, self._charge)
            if (journal := self._journal) is not None:
                ends.callback(lambda: journal.close(self._clock.epoch()))
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

    def _close_at_exit(self) -> None:
        self.close(grace_s=TERMINATION.grace_s(SystemExit))

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the runs that were submitted, or cancel them after an exception; then close."""
        try:
            if kind is None:
                for run in list(self._runs.values()):
                    run.wait()
        except BaseException as interrupted:
            kind = type(interrupted)
            raise
        finally:
            self.close(grace_s=TERMINATION.grace_s(kind))

    # What is wanted.

    def scale(self, slices: int | Iterable[int], spares: int | None = None) -> None:
        """Change how many slices are wanted; what need not change is not touched, and what runs goes on.

        Raises:
            ValueError: the number or the sizes cannot work; nothing has changed.
            FleetClosedError: it was closed.

        """
        sizes = parse_sizes(slices)
        with self._lock:
            self._check_open()
            kept = self._desired.spares if spares is None else spares
            desired = Desired(sizes, kept, self._desired.generation + 1)
            self._desired = desired
            self._wish = Wish(self._clock.epoch(), sizes, kept)
            self._opened().request(lambda: self._rescale(desired))

    def drain(self, slice_id: str, deadline_s: float | None = None) -> None:
        """Take a slice out of use and let it go; it is replaced. Work on it has `deadline_s` seconds to stop.

        Asked again, it has only ever less.

        Raises:
            UnknownSliceError: there is no such slice.
            FleetClosedError: it was closed.

        """
        grace = self.settings.drain_grace_s if deadline_s is None else _not_negative("deadline_s", deadline_s)
        with self._lock:
            self._check_open()
            self._row(slice_id)
            self._opened().request(lambda: self._drain(slice_id, grace))

    # What there is.

    def status(self) -> FleetStatus:
        """Return the fleet as it was after the last tick: an immutable value that prints as a table."""
        return self._loop.status

    def wait_ready(self, n: int | None = None, timeout_s: float | None = None) -> FleetStatus:
        """Wait until `n` slices are ready, by default the smallest valid size.

        Raises:
            InsufficientSlicesError: fewer are ready after `timeout_s` seconds; says why for every one that is missing.
            FleetClosedError: it was closed, or is while it is waited for.
            ValueError: more are asked for than the fleet aims for.

        """
        self._check_open()
        wanted = self._desired.smallest if n is None else n
        if type(wanted) is not int or not 1 <= wanted <= self._desired.target:
            raise ConfigurationError(
                f"wait_ready({n!r}): the fleet aims for {self._desired.target} slices; ask for 1 to that many, or scale"
            )
        enough = self._opened().wait(lambda status: self._closed or status.ready >= wanted, timeout_s)
        self._check_open()
        if not enough:
            why = self.why()
            reasons = {row.key: str(row) for row in why.slices if row.state in {"pending", "placed"}}
            raise InsufficientSlicesError(wanted, self.status().ready, reasons)
        return self.status()

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

    def plan(self) -> tuple[Step, ...]:
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

    def step(self) -> float:
        """Do one tick on the caller's thread; for those who drive the loop themselves.

        Returns:
            After how many seconds to call it again at the latest.

        Raises:
            ConfigurationError: the fleet was started, and ticks by itself.
            FleetClosedError: it was closed.

        """
        self._check_open()
        if self._ticks():
            raise ConfigurationError("step() drives a fleet that was not started; this one ticks by itself")
        return self._loop.tick()

    # Telling others.

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

    # Work.

    def options(
        self,
        *,
        slices: int | Iterable[int] | None = None,
        max_preemptions: int = 100,
        max_failures: int = 0,
        env: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        retry_on: Causes = (),
        never_retry_on: Causes = (),
    ) -> Submitter:
        """Say how the next run is to be treated.

        Args:
            slices: how many slices it takes, or several valid sizes; by default the fleet's own sizes.
            max_preemptions: restarts allowed after hosts were taken away.
            max_failures: restarts allowed after the function raised or its process died.
            env: variables set on every host before the function is unpickled; names and values are text.
            runtime_env: a Ray runtime environment; makes Ray build one per host, which takes a second or more. Folders
                of this machine can only be given to `ray.init(runtime_env=...)`, which uploads them.
            retry_on: exception classes (with their subclasses) and exit codes of `sys.exit` that mean "start it again":
                such a failure is charged to `max_preemptions` instead.
            never_retry_on: those that end the run at once, whatever is left of its budgets; they go before `retry_on`.

        Raises:
            ValueError: one of them cannot work.

        """
        options = run_options(
            target=self._desired.target,
            slices=slices,
            max_preemptions=max_preemptions,
            max_failures=max_failures,
            env=env,
            runtime_env=runtime_env,
            retry_on=retry_on,
            never_retry_on=never_retry_on,
        )
        if ours := sorted(OURS & {*options.env, *((runtime_env or {}).get("env_vars") or {})}):
            raise ConfigurationError(f"{', '.join(ours)}: the fleet sees to it on every host, so leave it out of env")
        return Submitter(self, options)

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Run:
        """Run `fn(*args, **kwargs)` once on every host of the slices it is given; return at once.

        Args:
            fn: a plain callable, which gets Ray's references as they are, or a Ray remote function, which gets the
                values of those that are arguments themselves, as in Ray. References and actor handles inside of
                arguments, or used by the function, are good on all hosts and let go with the run and its `Run`.
            args: positional arguments of the function.
            kwargs: named arguments of the function.

        Returns:
            The run. Of references that the function returns only those are good whose object somebody else made: what
            its process has put into Ray's store itself ends with it.

        Raises:
            UnpicklableFunctionError: the function or an argument cannot be sent; says which.
            FleetClosedError: the fleet was closed.

        """
        return self.options().submit(fn, *args, **kwargs)

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> RunResult:
        """Submit and wait for the result; see `submit` and `Run.result`."""
        return self.submit(fn, *args, **kwargs).result()

    def _submit(
        self, options: RunOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Run:
        self._check_open()
        drive = self._opened()
        work = drive.loop.backend.pack(fn, args, kwargs, options.runtime_env)
        owner = RunOwner(self._run_status, self._cancel, drive.wait_event, self.settings.cancel_grace_s)
        with self._lock:
            # Packing may have taken long. A close that follows finds this run.
            self._check_open()
            self._submitted += 1
            record = RunRecord(f"run-{self._submitted}", work, options, self._clock.epoch(), 0.0, self._conclude)
            run = self._runs[record.id] = Run(record, owner)
            drive.request(lambda: drive.loop.conductor.submit(record))
        return run

    # On the loop's thread.

    def _rescale(self, desired: Desired) -> None:
        picture = self._fleet.picture
        picture.desired = desired
        picture.growth.reset(picture.now)
        picture.backoff.succeeded()

    def _drain(self, slice_id: str, grace_s: float) -> None:
        life = self._fleet.picture.lives.get(slice_id)
        if life is not None:
            by = self._fleet.picture.now + grace_s
            life.drain_by = by if life.drain_by is None else min(by, life.drain_by)

    def _begin_close(self, grace_s: float) -> None:
        picture = self._fleet.picture
        by = picture.now + grace_s
        picture.closing_by = by if picture.closing_by is None else min(by, picture.closing_by)
        for run in list(picture.runs):
            self._loop.conductor.cancel(run, grace_s)

    def _given_back(self, status: FleetStatus) -> bool:
        """Whether all slices are gone, and no more will come: before the close was taken in, a tick may create some."""
        return self._fleet.picture.closing_by is not None and not status.slices

    def _tell(self, grace_s: float | None) -> None:
        """Tell work to stop, from a signal handler."""
        if self._drive is not None:
            self._drive.leave(lambda: self._begin_close(self.settings.close_grace_s if grace_s is None else grace_s))

    def _ticks(self) -> bool:
        return self._drive is not None and self._drive.runner is not None

    def _conclude_all(self) -> None:
        """End the runs that the loop did not come to."""
        for run in list(self._runs.values()):
            run.record.ended = run.record.ended or Ended.CANCELLED
            self._conclude(run.record)

    def _conclude(self, record: RunRecord) -> None:
        """Show that a run is over; called once per run, by the loop or by `close`."""
        run = self._runs.pop(record.id, None)
        if run is None:
            return
        self._loop.board.run_ended(record)
        run.over()

    # Inside.

    @property
    def _loop(self) -> Reconciler:
        return self._opened().loop

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
            reconciler = Reconciler(self._fleet, backend, self._clock, label=identity.label, seed=seed)
            backend.open(identity, reconciler)
        except BaseException:
            if self._journal is not None:
                self._journal.close(self._clock.epoch())
            raise
        if self._journal is not None:
            self._followers.add(self._journal.write, "journal")
        return Drive(reconciler, self._clock, identity.label)

    def _writer(self, path: Path) -> JournalWriter:
        return JournalWriter(path, self.history, limit=self.settings.journal_limit, wish=lambda: self._wish)

    def _resume(self, journal: JournalWriter) -> None:
        """Take the journal over, and go on with its numbers."""
        identity = self._identity
        shape = f"{type(self.shape).__name__}({self.shape})"
        self._wish = self._wish._replace(at=self._clock.epoch())
        resumed = journal.open(identity.label, identity.incarnation, shape, self._clock.epoch())
        self.history.resume(resumed.last_seq, resumed.latest_at, resumed.attempts)
        self._fleet.picture.next_number = resumed.next_slice
        self._submitted = resumed.next_run - 1

    def _measure(self, drive: Drive) -> None:
        """Begin to measure, if the backend has somewhere to put it."""
        backend, loop = drive.loop.backend, drive.loop
        if self.settings.metrics and isinstance(backend, Metered):
            self._followers.measure(backend.meter(), lambda: Seen(loop.status, loop.take_ticks(), drive.errors))

    def _check_open(self) -> None:
        if self._closed:
            raise FleetClosedError

    def _row(self, slice_id: str) -> SliceStatus:
        rows = {row.id: row for row in self.status().slices}
        if slice_id not in rows:
            raise UnknownSliceError(slice_id, rows)
        return rows[slice_id]

    def _run_status(self, record: RunRecord) -> RunStatus:
        if not self._closed and record.ended is None:
            drive = self._opened()
            with suppress(FleetClosedError):  # it is closing just now
                return drive.call(lambda: drive.loop.board.status_of(record))
        return run_status(record, "")

    def _cancel(self, record: RunRecord, grace_s: float) -> None:
        _not_negative("grace_s", grace_s)
        if not self._closed:
            drive = self._opened()
            drive.request(lambda: drive.loop.conductor.cancel(record, grace_s))


class Submitter:
    """`fleet.options(...)`: submits runs that are to be treated so."""

    def __init__(self, fleet: SliceController, options: RunOptions) -> None:
        """Bind options to a fleet."""
        self._fleet = fleet
        self._options = options

    def __repr__(self) -> str:
        """Show the options, and whose they are; nothing of environments."""
        return f"<options of {self._fleet!r}: {self._options}>"

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Run:
        """Run `fn(*args, **kwargs)` once on every host; see `SliceController.submit`."""
        return self._fleet._submit(self._options, fn, args, kwargs)  # noqa: SLF001 - one class in two parts

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> RunResult:
        """Submit and wait for the result."""
        return self.submit(fn, *args, **kwargs).result()


def _not_negative(name: str, seconds: float) -> float:
    if not seconds >= 0:
        raise ConfigurationError(f"{name} must be 0 seconds or more, not {seconds!r}")
    return seconds
