"""Runs and their attempts: which slices take part in what order, and how an attempt has ended.

Pure decisions over plain records that the loop's thread owns. An outcome is decided from what was observed, never from
the text of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sliceform.controller.observed import Outcome, OutcomeKind
from sliceform.controller.requests import AttemptSpec


class Ended(StrEnum):
    """How a run or an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    #: Attempts only: we ended it to grow, drain or shrink; no budget is charged.
    SUPERSEDED = "superseded"


class Departure(StrEnum):
    """Why a slice left an attempt before the attempt was over."""

    #: Notice, drain by the cluster, loss of a node or of the group.
    PREEMPTED = "preempted"
    #: Its agent died on a node that lives.
    FAILED = "failed"
    #: We took it: an operator's drain, close.
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How one run is to be treated."""

    #: Valid sizes, ascending; None = the fleet's own.
    sizes: tuple[int, ...] | None = None
    #: Restarts allowed after preemption, and after failure.
    max_preemptions: int = 100
    max_failures: int = 0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    runtime_env: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Exit codes, and names of exception classes, by which a failure is charged as a preemption, and by which it ends
    #: the run.
    retry_on: frozenset[int | str] = frozenset()
    never_retry_on: frozenset[int | str] = frozenset()
    #: Ids of the very slices it is for; it waits for these alone, and nobody waits behind it. None = any.
    pinned: tuple[str, ...] | None = None


@dataclass(slots=True)
class Attempt:
    """One try: its slices by rank and how each of its hosts ended."""

    spec: AttemptSpec
    started_epoch_s: float
    #: By (slice rank, host rank); the first answer counts.
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    #: By slice id.
    departures: dict[str, tuple[Departure, str]] = field(default_factory=dict)
    #: Slices on which no process of this attempt is left, or that are gone.
    cleared: set[str] = field(default_factory=set)
    #: When its processes are to be stopped by force, loop time; None = it is going well.
    stop_at: float | None = None
    #: By when its work was told to stop, epoch seconds; None = it was not, or no deadline is known.
    deadline: float | None = None
    #: Whether `Stop` has been asked for.
    stopped: bool = False
    #: Loop time at which something ended that may prove to be the death of a node; None if nothing did.
    doubted_at: float | None = None
    #: It ended as a failure, and that may still prove wrong.
    provisional: bool = False
    #: Why we end it on purpose; empty if we do not.
    superseded: str = ""
    ended: Ended | None = None
    ended_epoch_s: float | None = None
    detail: str = ""
    #: Node id and address of every host, by rank, as far as known when it started.
    nodes: tuple[tuple[str | None, str], ...] = ()

    @property
    def hosts(self) -> int:
        """How many hosts take part."""
        return len(self.spec.members) * self.spec.hosts_per_slice

    def record(self, life: str, rank: int, outcome: Outcome) -> None:
        """Take in how one host ended; a later answer changes nothing."""
        self.outcomes.setdefault((self.spec.members.index(life), rank), outcome)

    @property
    def succeeded(self) -> bool:
        """Whether every host returned."""
        return len(self.outcomes) == self.hosts and all(
            outcome.kind is OutcomeKind.RETURNED for outcome in self.outcomes.values()
        )

    @property
    def troubled(self) -> bool:
        """Whether it can no longer succeed as it stands."""
        return bool(self.departures) or any(
            outcome.kind is not OutcomeKind.RETURNED for outcome in self.outcomes.values()
        )

    def first(self, *kinds: OutcomeKind) -> tuple[int, Outcome] | None:
        """Return the first outcome of these kinds, as (rank, outcome)."""
        for (slice_rank, host_rank), outcome in self.outcomes.items():
            if outcome.kind in kinds:
                return slice_rank * self.spec.hosts_per_slice + host_rank, outcome
        return None


@dataclass(slots=True, repr=False)
class RunRecord:
    """One submitted run, on the loop's side."""

    id: str
    work: Any
    options: RunOptions
    submitted_epoch_s: float
    #: Loop time since which it waits for slices.
    waiting_since: float
    #: Called once, on the loop's thread, when the run is over; only stores and wakes.
    on_end: Callable[[RunRecord], None]
    attempts: list[Attempt] = field(default_factory=list)
    preemptions: int = 0
    failures: int = 0
    not_before: float = 0.0
    #: Attempts in a row that ended soon after they began.
    hasty: int = 0
    #: Loop time since which it could have had more slices; None if it could not.
    larger_since: float | None = None
    #: How many slices its last attempt was ended for; None if for another reason.
    grown_to: int | None = None
    #: Grace in seconds of a cancel that was asked for; None = nobody asked.
    cancel_grace_s: float | None = None
    ended: Ended | None = None
    detail: str = ""

    @property
    def active(self) -> Attempt | None:
        """The attempt that is under way."""
        if self.attempts and self.attempts[-1].ended is None:
            return self.attempts[-1]
        return None

    @property
    def waiting(self) -> bool:
        """Whether it waits for slices."""
        return self.ended is None and self.active is None

    @property
    def state(self) -> str:
        """`waiting`, `running`, or how it ended."""
        if self.ended is not None:
            return str(self.ended)
        return "waiting" if self.active is None else "running"

    def __repr__(self) -> str:
        """Name it, with its state."""
        return f"<RunRecord {self.id}: {self.state}>"


def assign(previous: Sequence[str], available: Sequence[str], size: int) -> tuple[str, ...]:
    """Return `size` slices by slice rank.

    Survivors keep their rank at the same size and only lost ranks move; smaller, they close ranks in order; larger, new
    ones are appended. `available` is in order of preference and holds at least `size` slices.
    """
    survivors = [life for life in previous if life in available]
    fresh = [life for life in available if life not in survivors]
    if size == len(previous):
        return tuple(life if life in available else fresh.pop(0) for life in previous)
    return tuple((survivors + fresh)[:size])


def classify(attempt: Attempt, *, cancelled: bool) -> tuple[Ended, str]:
    """Say how an attempt that is over has ended, and why in a sentence."""
    if attempt.succeeded:
        return Ended.SUCCEEDED, "every host returned"
    if cancelled:
        return Ended.CANCELLED, "cancelled"
    by_kind: dict[Departure, str] = {}
    for life, (departure, detail) in attempt.departures.items():
        by_kind.setdefault(departure, f"{life}: {detail}" if detail else life)
    if Departure.PREEMPTED in by_kind:
        return Ended.PREEMPTED, by_kind[Departure.PREEMPTED]
    if Departure.TAKEN in by_kind:
        return Ended.SUPERSEDED, by_kind[Departure.TAKEN]
    if attempt.superseded:
        return Ended.SUPERSEDED, attempt.superseded
    culprit = attempt.first(OutcomeKind.RAISED, OutcomeKind.REFUSED) or attempt.first(OutcomeKind.CRASHED)
    if culprit is not None:
        return Ended.FAILED, f"rank {culprit[0]}: {culprit[1].detail}"
    if Departure.FAILED in by_kind:
        return Ended.FAILED, by_kind[Departure.FAILED]
    lost = attempt.first(OutcomeKind.LOST)
    if lost is not None:
        return Ended.PREEMPTED, f"rank {lost[0]}: {lost[1].detail}"
    return Ended.FAILED, "its processes were stopped"


def within_budget(run: RunRecord) -> bool:
    """Whether the run may be started once more."""
    return run.preemptions <= run.options.max_preemptions and run.failures <= run.options.max_failures


def affordable(run: RunRecord) -> bool:
    """Whether the run may go on after one more attempt, whichever of its budgets that is charged to."""
    return run.preemptions < run.options.max_preemptions and run.failures < run.options.max_failures


def exempted(run: RunRecord, attempt: Attempt) -> bool | None:
    """Say what the user's own rules make of a failed attempt: True = try again, False = never, None = no rule."""
    failures = [outcome for outcome in attempt.outcomes.values() if outcome.kind in _OWN_ENDS]
    if any(_matches(outcome, run.options.never_retry_on) for outcome in failures):
        return False
    # Outcomes are in the order in which they came: what follows the first failure may be its consequence.
    return True if failures and _matches(failures[0], run.options.retry_on) else None


def _matches(outcome: Outcome, rules: frozenset[int | str]) -> bool:
    return outcome.exit_code in rules or not rules.isdisjoint(outcome.types)


#: Ends that the user's own code brought about.
_OWN_ENDS = frozenset({OutcomeKind.RAISED, OutcomeKind.REFUSED, OutcomeKind.CRASHED})
