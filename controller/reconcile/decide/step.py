"""Decisions as values: what `sync` and `plan` return and the loop commits.

Pure: a step says which record is to take which trigger and why; nothing has happened yet.
"""

from __future__ import annotations

from typing import NamedTuple

from sliceform.controller.reconcile.decide.policy import Pause, Vacancy
from sliceform.states.hosts import HostTrigger
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceTrigger


class Step(NamedTuple):
    """One trigger for one record, or, with `trigger=None`, a note about it."""

    #: Slice id.
    slice_id: str
    #: Host rank, or None for the slice itself.
    rank: int | None
    trigger: SliceTrigger | HostTrigger | None
    reason: Reason
    detail: str = ""
    #: What it goes back to: a replaced slice, the host that was lost.
    cause: str | None = None

    @property
    def key(self) -> str:
        """The id of the record that it is about."""
        return self.slice_id if self.rank is None else f"{self.slice_id}/{self.rank}"

    def __str__(self) -> str:
        """Say it in a line."""
        what = self.trigger.value if self.trigger else "note"
        return f"{what} {self.key} ({self.reason.value})" + (f": {self.detail}" if self.detail else "")


class StartAttempt(NamedTuple):
    """Give a run its slices, in order of slice rank; the `start` steps of those slices go with it."""

    run_id: str
    members: tuple[str, ...]


class GrowRun(NamedTuple):
    """End a run's attempt on purpose, so that the next one starts on more slices."""

    run_id: str
    #: How many slices the next attempt is to have.
    size: int


class EndRun(NamedTuple):
    """End a run as cancelled: it has waited, or gone on, for longer than its options allow."""

    run_id: str
    detail: str


class Decision(NamedTuple):
    """All that one pass of `plan` decided."""

    steps: tuple[Step, ...] = ()
    starts: tuple[StartAttempt, ...] = ()
    growth: GrowRun | None = None
    ends: tuple[EndRun, ...] = ()
    #: What is to be remembered: whether growth pauses, and what is still to be replaced.
    pause: Pause = Pause()
    vacancies: tuple[Vacancy, ...] = ()
    #: Loop time at which, if nothing else happens, to look again.
    due: float = float("inf")

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.steps or self.starts or self.growth or self.ends)
