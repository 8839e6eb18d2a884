"""Decisions as values: what `sync` and `plan` return and the loop commits.

Pure: a step says which record is to take which trigger and why; nothing has happened yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sliceform.controller.reconcile.decide.policy import Pause, Vacancy
from sliceform.controller.reconcile.decide.run import Clear, Left, Verdict
from sliceform.states.attempts import AttemptTrigger
from sliceform.states.hosts import HostTrigger
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunTrigger
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


class Members(NamedTuple):
    """The slices of an attempt that begins, by slice rank."""

    slices: tuple[str, ...]


class Growth(NamedTuple):
    """That an attempt makes way for one on so many slices."""

    size: int


class Halt(NamedTuple):
    """How the end of an attempt's work goes on."""

    #: When it is ended by force, loop time; None = not at all.
    stop_at: float | None
    #: What its work knows of that, epoch seconds; None if nothing.
    deadline: float | None
    #: By when its processes are to be gone, loop time, once that is asked for.
    force_by: float | None
    #: Whether its work is to be told anew.
    tell: bool


class Cleared(NamedTuple):
    """That nothing of an attempt is left on a host that does not say so itself."""

    rank: int
    how: Clear


class Corrected(NamedTuple):
    """That what looked like a failure of a slice, or on it, proved to be the loss of it."""

    slice_id: str
    left: Left


class Fenced(NamedTuple):
    """From when on hosts count as clear of an attempt, by rank; loop time."""

    at: Mapping[int, float]


class Doubted(NamedTuple):
    """That something ended which may prove to be the death of a node, from now on."""


class WorkStep(NamedTuple):
    """One trigger for a run or an attempt, or, with `trigger=None`, a note about it, if it has a reason."""

    #: Of the run, or of the attempt: `run-1/2`.
    key: str
    trigger: RunTrigger | AttemptTrigger | None
    reason: Reason | None = None
    detail: str = ""
    #: What it goes back to: a host, a slice, an attempt.
    cause: str | None = None
    #: What is to be written down with it.
    given: Members | Growth | Halt | Cleared | Fenced | Doubted | Corrected | Verdict | None = None

    def __str__(self) -> str:
        """Say it in a line."""
        what = self.trigger.value if self.trigger else "note"
        why = f" ({self.reason.value})" if self.reason else ""
        return f"{what} {self.key}{why}" + (f": {self.detail}" if self.detail else "")


class Decision(NamedTuple):
    """All that one pass of `plan` decided."""

    steps: tuple[Step | WorkStep, ...] = ()
    #: What is to be remembered: whether growth pauses, and what is still to be replaced.
    pause: Pause = Pause()
    vacancies: tuple[Vacancy, ...] = ()
    #: Loop time at which, if nothing else happens, to look again.
    due: float = float("inf")

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.steps)
