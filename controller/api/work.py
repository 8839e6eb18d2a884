"""Hand work to a fleet: with options, as runs that go on until they are over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sliceform.controller.api.opened import Opened, not_negative
from sliceform.controller.api.run import Run, RunOwner, RunResult
from sliceform.controller.errors import (
    ConfigurationError,
    FleetClosedError,
)
from sliceform.controller.model.functions import digest_of, name_of
from sliceform.controller.model.orders import Cancel, Submit
from sliceform.controller.model.run_options import Causes, RunOptions, run_options
from sliceform.controller.model.status import RunStatus
from sliceform.controller.on_host.environment import OURS
from sliceform.controller.reconcile.decide.run import Ended, RunRecord
from sliceform.controller.reconcile.rows import run_status

if TYPE_CHECKING:
    pass


class Work(Opened):
    """A fleet as far as it takes work."""

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
        priority: int = 0,
        max_wait_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Submitter:
        """Say how the next run is to be treated.

        Args:
            slices: how many slices it takes, or several valid sizes; by default the fleet's own sizes. Either way they
                are fixed when it is submitted: a later `scale` does not change them.
            max_preemptions: restarts allowed after hosts were taken away.
            max_failures: restarts allowed after the function raised or its process died.
            env: variables set on every host before the function is unpickled; names and values are text.
            runtime_env: a Ray runtime environment; makes Ray build one per host, which takes a second or more. Folders
                of this machine can only be given to `ray.init(runtime_env=...)`, which uploads them.
            retry_on: exception classes (with their subclasses) and exit codes of `sys.exit` that mean "start it again":
                such a failure is charged to `max_preemptions` instead.
            never_retry_on: those that end the run at once, whatever is left of its budgets; they go before `retry_on`.
            priority: a run of higher priority is given slices first; among equals the one that was submitted first. It
                takes none from runs under way.
            max_wait_s: the run is cancelled when it has waited for slices so long, each time that it waits, seconds.
            timeout_s: the run is cancelled when it is not over so long after it was submitted, seconds; its work has
                `settings.cancel_grace_s` to stop.

        Raises:
            ValueError: one of them cannot work.

        """
        options = run_options(
            largest=self._desired.largest,
            slices=slices,
            max_preemptions=max_preemptions,
            max_failures=max_failures,
            env=env,
            runtime_env=runtime_env,
            retry_on=retry_on,
            never_retry_on=never_retry_on,
            priority=priority,
            max_wait_s=max_wait_s,
            timeout_s=timeout_s,
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
            name, digest = name_of(fn), digest_of(fn)
            order = Submit(f"run-{self._submitted}", name, digest, work, options, self._clock.epoch())
            run = self._runs[order.run_id] = Run(RunRecord.of(order, self._conclude), owner)
            drive.order(order)
        return run

    def _run_status(self, record: RunRecord) -> RunStatus:
        if not self._closed and record.ended is None:
            drive = self._opened()
            with suppress(FleetClosedError):  # it is closing just now
                return drive.call(lambda: drive.loop.board.status_of(record))
        return run_status(record, "")

    def _cancel(self, record: RunRecord, grace_s: float) -> None:
        not_negative("grace_s", grace_s)
        if not self._closed:
            self._opened().order(Cancel(record.id, grace_s))

    def _conclude(self, record: RunRecord) -> None:
        """Show that a run is over; called once per run, by the loop or by `close`."""
        run = self._runs.pop(record.id, None)
        if run is None:
            return
        self._loop.board.run_ended(record)
        run.over()

    def _conclude_all(self) -> None:
        """End the runs that the loop did not come to."""
        for run in list(self._runs.values()):
            run.record.ended = run.record.ended or Ended.CANCELLED
            self._conclude(run.record)


class Submitter:
    """`fleet.options(...)`: submits runs that are to be treated so."""

    def __init__(self, fleet: Work, options: RunOptions) -> None:
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
