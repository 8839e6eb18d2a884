"""The calls made to the hosts of one slice: gathered into runs, followed, and answered.

A slice is one gang: its hosts start together and are lost together. So calls to single hosts are gathered until every
host has one, or for a moment, and go to the fleet as one run, pinned to this slice. Nothing is tried again here: the
caller counts failures and preemptions himself.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ray.exceptions import ActorDiedError, TaskCancelledError

from sliceform.controller.api.run import Run
from sliceform.controller.compat.calls import Call, agree
from sliceform.controller.compat.infos import SERVING
from sliceform.controller.compat.refs import Promise, Refs
from sliceform.controller.errors import RunFailed, SliceformError
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.model.status import SliceStatus
from sliceform.controller.reconcile.decide.run import Ended

#: What joins slices into one execution: calls that name the same one cannot do without each other.
_WORLD = "MEGASCALE_COORDINATOR_ADDRESS"
#: How long calls to some of the hosts wait for those to the others, seconds.
GATHER_S = 0.5


class Submit(Protocol):
    """Submits a run of these calls, by host rank, to this slice."""

    def __call__(self, slice_id: str, calls: Mapping[int, Call]) -> Run: ...  # noqa: D102


@dataclass(slots=True, eq=False)
class _Batch:
    """Calls that run together."""

    #: When it starts though not every host was called, seconds of the pool's clock.
    due: float
    calls: dict[int, Call] = field(default_factory=dict)
    #: Those not answered yet, by host rank.
    open: dict[int, Promise] = field(default_factory=dict)
    run: Run | None = None

    @property
    def worlds(self) -> set[str]:
        """The executions over several slices that it is part of."""
        return {call.env[_WORLD] for call in self.calls.values() if _WORLD in call.env}


class SliceWork:
    """What callers asked of one slice; used under the pool's lock."""

    def __init__(self, slice_id: str, hosts: int, refs: Refs, submit: Submit) -> None:
        """Take the slice, how many hosts it has, and how its calls are answered and submitted."""
        self._slice_id = slice_id
        self._hosts = hosts
        self._refs = refs
        self._submit = submit
        self._batches: list[_Batch] = []
        #: Kept when these batches are over, and when the slice has been let go.
        self._idle: list[tuple[list[_Batch], Promise]] = []
        self._released: list[Promise] = []
        #: Executions over several slices that lost their part on this one; the pool tells the others.
        self.broken: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether anybody waits for anything of it."""
        return bool(self._batches or self._idle or self._released)

    def call(self, rank: int, call: Call, now: float) -> Promise:
        """Take a call to one host; one that the host has not answered yet is cancelled.

        Raises:
            ConfigurationError: it cannot run together with the calls that wait for the other hosts.

        """
        gathering = self._gathering()
        if gathering is not None:
            agree(call, {other: made for other, made in gathering.calls.items() if other != rank})
        self.cancel(rank)
        gathering = self._gathering()
        if gathering is None:
            gathering = _Batch(now + GATHER_S)
            self._batches.append(gathering)
        promise = self._refs.promise()
        gathering.calls[rank] = call
        gathering.open[rank] = promise
        if len(gathering.calls) == self._hosts:
            self._start(gathering)
        return promise

    def cancel(self, rank: int) -> bool:
        """End what this host has not answered yet, and with it what runs with it on the other hosts.

        Returns:
            Whether there are processes that have to end; see `when_idle`.

        """
        batch = next((batch for batch in self._batches if rank in batch.open), None)
        if batch is None:
            return False
        if batch.run is not None:
            batch.run.cancel()
            return True
        del batch.calls[rank]
        self._refs.fail(batch.open.pop(rank), TaskCancelledError(error_message="cancelled before it started"))
        if not batch.calls:
            self._batches.remove(batch)
        return False

    def when_idle(self, promise: Promise) -> None:
        """Keep a promise once what runs now is over."""
        self._idle.append(([batch for batch in self._batches if batch.run is not None], promise))

    def dropped(self, number: int) -> None:
        """Cancel what a promise was made for, which somebody cancelled by its reference."""
        for batch in self._batches:
            for rank, promise in batch.open.items():
                if promise.number == number:
                    self.cancel(rank)
                    return

    def when_released(self, promise: Promise) -> None:
        """Keep a promise once the slice is no more."""
        self._released.append(promise)

    def look(self, row: SliceStatus | None, now: float) -> None:
        """Start what is due, and answer what is known; `row` is the slice as it stands, None if it is no more."""
        serving = row is not None and row.state in SERVING
        for batch in list(self._batches):
            if batch.run is None and batch.open and serving and now >= batch.due:
                self._start(batch)
            if batch not in self._batches:
                continue
            self._answer(batch)
            if batch.open and not serving and (batch.run is None or batch.run.record.waiting):
                self._give_up(batch, row)
            if not batch.open if batch.run is None else batch.run.done():
                self._batches.remove(batch)
        for waiting in list(self._idle):
            batches, promise = waiting
            if not any(batch in self._batches for batch in batches):
                self._idle.remove(waiting)
                self._refs.keep(promise, pickle.dumps(None))
        if row is None:
            for promise in self._released:
                self._refs.keep(promise, pickle.dumps(None))
            self._released.clear()

    def leave(self, worlds: set[str]) -> None:
        """End the parts of executions that lost a part elsewhere: they would wait for it."""
        for batch in self._batches:
            if batch.open and batch.worlds & worlds:
                for promise in batch.open.values():
                    self._refs.fail(promise, lost(f"another slice of the execution on {self._slice_id} was preempted"))
                batch.open.clear()
                if batch.run is not None:
                    batch.run.cancel()

    def abandon(self, why: str) -> None:
        """Fail all that is not answered yet: the pool is given up."""
        for batch in self._batches:
            for promise in batch.open.values():
                self._refs.fail(promise, lost(why))
        for promise in [*self._released, *(promise for _, promise in self._idle)]:
            self._refs.keep(promise, pickle.dumps(None))
        self._batches.clear()
        self._idle.clear()
        self._released.clear()

    def _gathering(self) -> _Batch | None:
        return next((batch for batch in self._batches if batch.run is None), None)

    def _start(self, batch: _Batch) -> None:
        try:
            batch.run = self._submit(self._slice_id, batch.calls)
        except SliceformError as error:
            for promise in batch.open.values():
                self._refs.fail(promise, error)
            self._batches.remove(batch)

    def _answer(self, batch: _Batch) -> None:
        """Answer the hosts that returned; the others once it is known how the run ended."""
        if batch.run is None:
            return
        over = batch.run.done()
        attempts = batch.run.record.attempts
        outcomes = attempts[-1].outcomes if attempts else {}
        for rank in list(batch.open):
            outcome = outcomes.get((0, rank))
            if outcome is not None and outcome.kind is OutcomeKind.RETURNED:
                self._return(batch.open.pop(rank), outcome)
        if batch.run.record.ended is Ended.PREEMPTED:
            self.broken |= batch.worlds
        if over and batch.open:
            error, text = _reason(self._slice_id, batch.run)
            for promise in batch.open.values():
                self._refs.fail_as(promise, error, text)
            batch.open.clear()

    def _return(self, promise: Promise, outcome: Outcome) -> None:
        assert outcome.load is not None
        try:
            data, held = outcome.load()
        except Exception as error:  # noqa: BLE001 - whatever Ray raises when the value was lost on its way
            self._refs.fail(promise, lost(f"what a host of {self._slice_id} returned was lost with it: {error}"))
        else:
            self._refs.keep(promise, data, held)

    def _give_up(self, batch: _Batch, row: SliceStatus | None) -> None:
        """Fail calls to a slice that was lost before they started: it never comes back."""
        if batch.run is not None:
            batch.run.cancel(grace_s=0.0)
        self.broken |= batch.worlds
        error = gone(self._slice_id, row)
        for promise in batch.open.values():
            self._refs.fail(promise, error)
        batch.open.clear()


def lost(why: str) -> ActorDiedError:
    """Return the error that old code takes for a preemption."""
    error = ActorDiedError()
    error.error_msg = why
    return error


def gone(slice_id: str, row: SliceStatus | None) -> ActorDiedError:
    """Return that error for a slice that takes no work any more."""
    why = "released" if row is None else f"{row.state}: {row.reason} {row.detail}".rstrip()
    return lost(f"{slice_id} is unhealthy or preempted ({why}); prepare_all_slices() puts its replacement in its place")


def _reason(slice_id: str, run: Run) -> tuple[bytes, str]:
    """Return why a run gave no values: an exception, pickled, and the text to show with it."""
    record = run.record
    if record.ended is Ended.PREEMPTED:
        error: Exception = lost(f"{slice_id} was preempted: {record.detail}")
    elif record.ended is Ended.CANCELLED:
        error = TaskCancelledError(error_message=f"{run.id} on {slice_id} was cancelled")
    else:
        verdict = record.attempts[-1].verdict
        assert verdict is not None
        outcome = verdict.outcome or Outcome(OutcomeKind.CRASHED, record.detail)
        if outcome.error is not None:
            return outcome.error, outcome.traceback or outcome.detail
        error = RunFailed(
            f"{run.id} on {slice_id}: {record.detail}",
            run_id=run.id,
            host=verdict.host,
            remote_traceback=outcome.traceback,
        )
    return pickle.dumps(error), str(error)
