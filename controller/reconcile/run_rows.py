"""Keep the rows of runs in the status: what cannot have changed since the last tick is not made again.

A queue of a thousand runs and a run of a thousand attempts must not cost more in a tick in which nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.status import AttemptStatus, RunStatus, attempt_status, run_status


@dataclass(frozen=True, slots=True)
class Ahead:
    """The runs that wait before another one, in the order in which they came."""

    count: int = 0
    first: str = ""

    @classmethod
    def of(cls, runs: Iterable[RunRecord], largest: int) -> Ahead:
        """Count those that others wait behind; `largest` is the largest size that is wanted."""
        blocking = [run.id for run in runs if _blocks(run, largest)]
        return cls(len(blocking), blocking[0]) if blocking else cls()

    def __str__(self) -> str:
        """Name the first."""
        return self.first if self.count == 1 else f"{self.first} and {self.count - 1} more"


class RunRows:
    """The rows of all runs that are not over."""

    def __init__(self, outlook: Callable[[RunRecord, Ahead], str]) -> None:
        """`outlook` says what a run waits for behind others, or is about to do."""
        self._outlook = outlook
        #: Rows of runs that wait behind others, which only change when something is recorded.
        self._queued: dict[str, RunStatus] = {}
        self._seq = -1
        #: By run: how many of its attempts were forgotten, and the first of those that are kept, if they cannot change.
        self._settled: dict[str, tuple[int, tuple[AttemptStatus, ...]]] = {}

    def rows(self, runs: Sequence[RunRecord], seq: int, now: float, largest: int) -> tuple[RunStatus, ...]:
        """Return a row per run, in order; `seq` is the number of the last change, `now` the loop time.

        `largest` is the largest size that is wanted.
        """
        if seq != self._seq:
            alive = {run.id for run in runs}
            self._settled = {name: rows for name, rows in self._settled.items() if name in alive}
            self._queued = {}
            self._seq = seq
        made: list[RunStatus] = []
        count, first = 0, ""
        for run in runs:
            row = self._queued.get(run.id)
            if row is None:
                row = run_status(run, self._outlook(run, Ahead(count, first)), self._settle(run))
                if count and run.waiting and now >= run.not_before:
                    self._queued[run.id] = row
            made.append(row)
            if _blocks(run, largest):
                count, first = count + 1, first or run.id
        return tuple(made)

    def _settle(self, run: RunRecord) -> tuple[AttemptStatus, ...]:
        """Return the rows of the first attempts that are over and charged for good."""
        forgotten, known = self._settled.get(run.id, (0, ()))
        if run.forgotten > forgotten:
            # Always those after the first.
            known = (*known[:1], *known[1 + run.forgotten - forgotten :])
        fresh = []
        for attempt in run.attempts[len(known) :]:
            if attempt.ended is None or attempt.provisional:
                break
            fresh.append(attempt_status(attempt))
        if fresh or run.forgotten > forgotten:
            known = (*known, *fresh)
            self._settled[run.id] = run.forgotten, known
        return known


def _blocks(run: RunRecord, largest: int) -> bool:
    return run.waiting and run.options.pinned is None and run.sizes[0] <= largest
