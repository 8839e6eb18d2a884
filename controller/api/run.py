"""A submitted run as its owner sees it: wait for it, read its result, cancel it."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from sliceform.controller.errors import RunCancelled, RunError, RunFailed, RunPreempted
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.model.status import AttemptStatus, RunStatus
from sliceform.controller.reconcile.decide.run import Ended, RunRecord
from sliceform.controller.reconcile.rows import attempt_status

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What every host returned."""

    #: By rank: `values[rank]`.
    values: list[Any]
    #: By slice rank, then host rank: `by_slice[slice_rank][host_rank]`.
    by_slice: list[list[Any]]


@dataclass(slots=True)
class RunOwner:
    """What a run needs of its fleet."""

    status: Callable[[RunRecord], RunStatus]
    cancel: Callable[[RunRecord, float], None]
    #: Waits for the event, at most so many seconds, and returns whether it is set; drives a fleet without a thread.
    wait: Callable[[threading.Event, float | None], bool]
    cancel_grace_s: float


@dataclass(slots=True, repr=False)
class Run:
    """A run of a function on every host of some slices; made by `SliceController.submit`."""

    record: RunRecord
    _owner: RunOwner
    _over: threading.Event = field(default_factory=threading.Event)
    _result: RunResult | None = None

    @property
    def id(self) -> str:
        """Its name in the history, for example `run-1`."""
        return self.record.id

    @property
    def attempts(self) -> tuple[AttemptStatus, ...]:
        """The first attempt and the newest 99: who took part, when, and how each host ended."""
        return tuple(attempt_status(attempt) for attempt in list(self.record.attempts))

    def status(self) -> RunStatus:
        """Return how it stands, and what it waits for if it waits."""
        return self._owner.status(self.record)

    def done(self) -> bool:
        """Whether it is over."""
        return self._over.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over, at most `timeout_s` seconds; return whether it is."""
        return self._owner.wait(self._over, timeout_s)

    def cancel(self, grace_s: float | None = None) -> None:
        """End it: ask its processes to stop, wait `grace_s` seconds, then force; return at once."""
        self._owner.cancel(self.record, self._owner.cancel_grace_s if grace_s is None else grace_s)

    def result(self, timeout_s: float | None = None) -> RunResult:
        """Wait for the result and return it.

        Raises:
            RunFailed: the function raised on a host, or its process died, more often than `max_failures` allows.
            RunPreempted: the preemption budget is used up.
            RunCancelled: somebody cancelled it.
            ResultLost: it succeeded, but a host is gone before its value was fetched.
            TimeoutError: it is not over yet; it goes on.

        """
        if not self.wait(timeout_s):
            message = f"{self.id} is not over after {timeout_s:g} s: {self.status().detail}; it goes on"
            raise TimeoutError(message)
        if self.record.ended is not Ended.SUCCEEDED:
            error, cause = self._error()
            raise error from cause
        if self._result is None:
            self._result = self._load()
        return self._result

    def _load(self) -> RunResult:
        attempt = self.record.attempts[-1]
        per_slice = attempt.spec.hosts_per_slice
        slices = range(len(attempt.spec.members))
        by_slice = [[_load(attempt.outcomes[rank, host]) for host in range(per_slice)] for rank in slices]
        # Fetched once: the cluster need not keep them any longer.
        attempt.shed()
        return RunResult([value for values in by_slice for value in values], by_slice)

    def _error(self) -> tuple[RunError, BaseException | None]:
        record = self.record
        tries = self.attempts
        count = f"after {record.tries} attempt{'s' * (record.tries != 1)}"
        if record.ended is Ended.CANCELLED:
            why = f": {record.cancel_detail}" if record.cancel_detail else ""
            return RunCancelled(f"{self.id} was cancelled {count}{why}", run_id=self.id, attempts=tries), None
        if record.ended is Ended.PREEMPTED:
            budget = f"max_preemptions={record.options.max_preemptions}"
            message = f"{self.id} was preempted {count}, {budget}: {record.detail}"
            return RunPreempted(message, run_id=self.id, attempts=tries), None
        verdict = record.attempts[-1].verdict
        assert verdict is not None
        outcome = verdict.outcome or Outcome(OutcomeKind.CRASHED, record.detail)
        cause = _unpickle(outcome.error)
        error = RunFailed(
            f"{self.id} failed {count}, max_failures={record.options.max_failures}: {record.detail}",
            run_id=self.id,
            attempts=tries,
            host=verdict.host,
            remote_traceback=outcome.traceback,
            exception=cause,
        )
        return error, cause

    def __repr__(self) -> str:
        """Name it, with its state; nothing of what it was given."""
        tries = self.record.tries
        return f"<Run {self.id}: {self.record.stands}, {tries} attempt{'s' * (tries != 1)}>"

    def over(self) -> None:
        """Tell those who wait that it is over; called by the loop."""
        self._over.set()


def _load(outcome: Outcome) -> Any:
    return outcome.load() if outcome.load is not None else None


def _unpickle(error: bytes | None) -> BaseException | None:
    """Return the remote exception; None if this process cannot make it, which then shows only its traceback."""
    if error is None:
        return None
    try:
        loaded = pickle.loads(error)
    except Exception as failure:  # noqa: BLE001 - the user's code runs here
        log.info("exception_not_restored", cause=repr(failure))
        return None
    return loaded if isinstance(loaded, BaseException) else None
