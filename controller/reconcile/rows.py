"""Make the rows of the status; those of runs that cannot have changed since the last tick are not made again.

A queue of a thousand runs and a run of a thousand attempts must not cost more in a tick in which nothing happens.
"""

from __future__ import annotations

from collections.abc import Sequence

from sliceform.controller.model.status import AttemptStatus, HostStatus, RunStatus, SliceStatus
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt, RunRecord
from sliceform.controller.reconcile.prospects import Prospects


def slice_status(life: Life) -> SliceStatus:
    """Return one slice as readers see it."""
    record = life.record
    hosts = tuple(
        HostStatus(
            host.rank,
            host.state,
            host.node_id,
            seen.address,
            seen.devices,
            seen.agent_pid,
            host.reason or "",
            host.detail,
        )
        for host, seen in zip(record.hosts, life.view.hosts, strict=True)
    )
    return SliceStatus(
        record.id,
        str(record.state),
        record.at,
        record.place,
        record.reason or "",
        record.detail,
        record.attempt,
        record.replaces,
        hosts,
    )


def attempt_status(attempt: Attempt) -> AttemptStatus:
    """Return one attempt as readers see it."""
    per_slice = attempt.spec.hosts_per_slice
    kinds = tuple(
        str(outcome.kind) if (outcome := attempt.outcomes.get(divmod(rank, per_slice))) else None
        for rank in range(attempt.hosts)
    )
    return AttemptStatus(
        attempt.spec.number,
        attempt.spec.members,
        attempt.started_epoch_s,
        attempt.ended_epoch_s,
        attempt.ended,
        attempt.why_ended,
        kinds,
    )


def run_status(run: RunRecord, outlook: str, settled: tuple[AttemptStatus, ...] = ()) -> RunStatus:
    """Return one run as readers see it.

    `outlook` says what it waits for, or is about to do; `settled` are its first attempts, where they were made before
    and cannot change any more.
    """
    detail = outlook if run.ended is None else run.detail
    if run.active is not None:
        doing = f"attempt {run.active.spec.number} on {', '.join(run.active.spec.members)}"
        detail = f"{doing}; {outlook}" if outlook else doing
    attempts = (*settled, *map(attempt_status, run.attempts[len(settled) :]))
    return RunStatus(
        run.id,
        run.stands,
        detail,
        run.submitted_epoch_s,
        attempts,
        run.preemptions,
        run.failures,
        run.forgotten,
    )


class RunRows:
    """The rows of all runs that are not over."""

    def __init__(self) -> None:
        """Start without runs."""
        #: By run: its row, and all of what it was made from that may change.
        self._made: dict[str, tuple[tuple[object, ...], RunStatus]] = {}
        #: Rows of runs that wait behind others, which only change when something is recorded.
        self._queued: dict[str, RunStatus] = {}
        self._seq = -1
        #: By run: how many of its attempts were forgotten, and the first of those that are kept, if they cannot change.
        self._settled: dict[str, tuple[int, tuple[AttemptStatus, ...]]] = {}

    def rows(self, runs: Sequence[RunRecord], prospects: Prospects, seq: int, now: float) -> tuple[RunStatus, ...]:
        """Return a row per run, in order; `seq` is the number of the last change, `now` the loop time."""
        if seq != self._seq:
            alive = {run.id for run in runs}
            self._settled = {name: rows for name, rows in self._settled.items() if name in alive}
            self._made = {name: row for name, row in self._made.items() if name in alive}
            self._queued = {}
            self._seq = seq
        rows: list[RunStatus] = []
        before, first = 0, ""
        for run in runs:
            row = self._queued.get(run.id)
            if row is None:
                row = self._row(run, prospects.of(run, before, first))
                if before and run.waiting and now >= run.not_before:
                    self._queued[run.id] = row
            rows.append(row)
            if prospects.blocks(run):
                before, first = before + 1, first or run.id
        return tuple(rows)

    def _row(self, run: RunRecord, outlook: str) -> RunStatus:
        """Return the row of a run, the one made before if it would be the same."""
        last = run.attempts[-1] if run.attempts else None
        goes = (0, None) if last is None else (len(last.outcomes), last.state)
        shown = (outlook, run.state, run.tries, run.preemptions, run.failures, len(run.unsettled), goes)
        made = self._made.get(run.id)
        if made is None or made[0] != shown:
            made = self._made[run.id] = shown, run_status(run, outlook, self._settle(run))
        return made[1]

    def _settle(self, run: RunRecord) -> tuple[AttemptStatus, ...]:
        """Return the rows of the first attempts that are over and charged for good."""
        forgotten, known = self._settled.get(run.id, (0, ()))
        if run.forgotten > forgotten:
            # Always those after the first.
            known = (*known[:1], *known[1 + run.forgotten - forgotten :])
        fresh = []
        for attempt in run.attempts[len(known) :]:
            if attempt.ended is None:
                break
            fresh.append(attempt_status(attempt))
        if fresh or run.forgotten > forgotten:
            known = (*known, *fresh)
            self._settled[run.id] = run.forgotten, known
        return known
