"""Runs and their attempts: which slices take part in what order, and how an attempt has ended.

Pure decisions over plain records that the loop's thread owns. An outcome is decided from what was observed, never from
the text of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sliceform.controller.model.effects import AttemptSpec
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.model.orders import Submit
from sliceform.controller.model.run_options import RunOptions

#: So many attempts of a run are kept: its first and the newest.
ATTEMPTS_KEPT = 100


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


class Left(NamedTuple):
    """That a slice left an attempt, written down when it was committed."""

    departure: Departure
    detail: str
    #: The host that it began with, `<slice id>/<rank>`, or the slice if it was none of them.
    host: str


class Verdict(NamedTuple):
    """How an attempt has ended, and what it goes back to: the one answer that history, errors and charges give."""

    ended: Ended
    #: Why, in a sentence.
    detail: str
    #: The host that it began with, `<slice id>/<rank>`; empty if nothing went wrong.
    host: str = ""
    #: How the process there ended; None if it was not a process that brought it about.
    outcome: Outcome | None = None


@dataclass(slots=True)
class Attempt:
    """One try: its slices by rank and how each of its hosts ended."""

    spec: AttemptSpec
    started_epoch_s: float
    #: By (slice rank, host rank), in the order in which they came; the first answer of a host counts.
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    #: Those of them that came about before the work there was asked to stop.
    unasked: list[tuple[int, int]] = field(default_factory=list)
    #: By slice id, in the order in which they left.
    departures: dict[str, Left] = field(default_factory=dict)
    #: Whether any of its work was asked to stop: what ends from then on may do so for that.
    asked: bool = False
    #: Slices of whose departure its work was told.
    told: frozenset[str] = frozenset()
    #: How hosts came to be clear of it, by rank; and at which loop time those that are not will count as clear.
    clear: dict[int, str] = field(default_factory=dict)
    fences: dict[int, float] = field(default_factory=dict)
    #: Slices all of whose hosts are clear of it.
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
    verdict: Verdict | None = None
    ended_epoch_s: float | None = None
    #: Node id and address of every host, by rank, as far as known when it started.
    nodes: tuple[tuple[str | None, str], ...] = ()

    @property
    def ended(self) -> Ended | None:
        """How it ended; None while it goes on."""
        return None if self.verdict is None else self.verdict.ended

    @property
    def detail(self) -> str:
        """Why it ended so, in a sentence; empty while it goes on."""
        return "" if self.verdict is None else self.verdict.detail

    @property
    def hosts(self) -> int:
        """How many hosts take part."""
        return len(self.spec.members) * self.spec.hosts_per_slice

    def rank_of(self, slice_id: str, host_rank: int) -> int:
        """Return the rank of a host of one of its slices."""
        return self.rank((self.spec.members.index(slice_id), host_rank))

    def record(self, slice_id: str, rank: int, outcome: Outcome) -> None:
        """Take in how one host ended; a later answer changes nothing."""
        key = (self.spec.members.index(slice_id), rank)
        if key not in self.outcomes:
            self.outcomes[key] = outcome
            if outcome.unasked or not self.asked:
                self.unasked.append(key)

    def leave(self, slice_id: str, left: Left) -> None:
        """Write down that a slice left, which ends it on all others; what happens to that slice later counts no more.

        Corrections are another matter: see `oversee`.
        """
        self.departures.setdefault(slice_id, left)
        self.asked = True

    def shed(self) -> None:
        """Keep of how its hosts ended only what is shown: no values, no exceptions, no tracebacks."""
        self.outcomes = {key: Outcome(outcome.kind, outcome.detail) for key, outcome in self.outcomes.items()}
        if self.verdict is not None:
            self.verdict = self.verdict._replace(outcome=None)

    def host(self, key: tuple[int, int]) -> str:
        """Return the name of a host, `<slice id>/<rank>`."""
        return f"{self.spec.members[key[0]]}/{key[1]}"

    def rank(self, key: tuple[int, int]) -> int:
        """Return the rank of a host in the attempt."""
        return key[0] * self.spec.hosts_per_slice + key[1]

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
    #: Valid sizes, ascending: its own, or those that were wanted when it was submitted.
    sizes: tuple[int, ...] = ()
    #: Loop time at which it was taken in.
    submitted_at: float = 0.0
    #: The first and the newest, up to `ATTEMPTS_KEPT`; and how many have begun.
    attempts: list[Attempt] = field(default_factory=list)
    tries: int = 0
    preemptions: int = 0
    failures: int = 0
    not_before: float = 0.0
    #: Attempts in a row that ended soon after they began.
    hasty: int = 0
    #: How many slices its last attempt was ended for; None if for another reason.
    grown_to: int | None = None
    #: Loop time by which its work is to be gone, since it was cancelled; None = nobody asked.
    cancel_by: float | None = None
    #: Why it was, if nobody asked for it.
    cancel_detail: str = ""
    ended: Ended | None = None
    detail: str = ""

    @classmethod
    def of(cls, order: Submit, on_end: Callable[[RunRecord], None] = lambda _: None) -> RunRecord:
        """Return the record of a run that was submitted, before it is taken in."""
        return cls(order.run_id, order.work, order.options, order.submitted_epoch_s, 0.0, on_end)

    @property
    def forgotten(self) -> int:
        """How many attempts between the first and the newest are not kept any more."""
        return self.tries - len(self.attempts)

    def begin(self, attempt: Attempt) -> None:
        """Take a new attempt in, and let go of what earlier ones hold that nobody can ask for any more."""
        if self.attempts:
            self.attempts[-1].shed()
        self.attempts.append(attempt)
        self.tries += 1
        if len(self.attempts) > ATTEMPTS_KEPT:
            del self.attempts[1]

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


def classify(attempt: Attempt, *, cancelled: bool) -> Verdict:
    """Say how an attempt that is over has ended, and which host that goes back to.

    What came first and was not asked for leads. A slice that was lost goes before the ends of processes, also those
    that were seen earlier: a peer's connection breaks long before a loss shows.
    """
    if attempt.succeeded:
        return Verdict(Ended.SUCCEEDED, "every host returned")
    if cancelled:
        return Verdict(Ended.CANCELLED, "cancelled")
    life = _first_loss(attempt)
    culprit = _first_end(attempt)
    if life is None and culprit is None and attempt.superseded:
        return Verdict(Ended.SUPERSEDED, attempt.superseded)
    if life is None and culprit is None:
        life = next(iter(attempt.departures), None)
    if life is not None:
        left = attempt.departures[life]
        return Verdict(_ENDS[left.departure], f"{life}: {left.detail}", left.host)
    if culprit is None:
        host = attempt.host(next(iter(attempt.outcomes), (0, 0)))
        return Verdict(Ended.FAILED, f"its processes were stopped, on {host} first", host)
    outcome, host = attempt.outcomes[culprit], attempt.host(culprit)
    ended = Ended.PREEMPTED if outcome.kind is OutcomeKind.LOST else Ended.FAILED
    return Verdict(ended, f"rank {attempt.rank(culprit)} ({host}): {outcome.detail}", host, outcome)


def _first_loss(attempt: Attempt) -> str | None:
    """Return the slice that was the first to leave without being asked to.

    An agent that dies once something was asked to stop may do so for that; a node or a notice never does.
    """
    asked = bool(attempt.superseded)
    for life, left in attempt.departures.items():
        if left.departure is Departure.PREEMPTED or (left.departure is Departure.FAILED and not asked):
            return life
        asked = True
    return None


def _first_end(attempt: Attempt) -> tuple[int, int] | None:
    """Return the host whose process was the first to end without being asked to, other than well.

    The word that a process died takes longer than what its peers raise for it, by whatever class their collective
    raises: so it goes before them. One that was lost or whose connection to a peer broke says that something ended
    elsewhere: it goes after all others.
    """
    ends = [key for key in attempt.unasked if attempt.outcomes[key].kind in _OWN_ENDS | {OutcomeKind.LOST}]
    return min(ends, key=lambda key: _distance(attempt.outcomes[key]), default=None)


def _distance(outcome: Outcome) -> int:
    """Return how far an end is likely to be from what caused all others."""
    if outcome.kind is OutcomeKind.CRASHED:
        return 0
    return 2 if outcome.kind is OutcomeKind.LOST or "builtins.ConnectionError" in outcome.types else 1


def within_budget(run: RunRecord) -> bool:
    """Whether the run may be started once more."""
    return run.preemptions <= run.options.max_preemptions and run.failures <= run.options.max_failures


def affordable(run: RunRecord) -> bool:
    """Whether the run may go on after one more attempt, whichever of its budgets that is charged to."""
    return run.preemptions < run.options.max_preemptions and run.failures < run.options.max_failures


def exempted(run: RunRecord, attempt: Attempt) -> bool | None:
    """Say what the user's own rules make of a failed attempt: True = try again, False = never, None = no rule."""
    ends = [attempt.outcomes[key] for key in attempt.unasked]
    if any(_matches(end, run.options.never_retry_on) for end in ends if end.kind in _OWN_ENDS):
        return False
    # What follows the end that leads may be its consequence.
    leads = attempt.verdict.outcome if attempt.verdict is not None else None
    return True if leads is not None and _matches(leads, run.options.retry_on) else None


def _matches(outcome: Outcome, rules: frozenset[int | str]) -> bool:
    return outcome.exit_code in rules or not rules.isdisjoint(outcome.types)


#: Ends that the user's own code brought about.
_OWN_ENDS = frozenset({OutcomeKind.RAISED, OutcomeKind.REFUSED, OutcomeKind.CRASHED})
_ENDS = {
    Departure.PREEMPTED: Ended.PREEMPTED,
    Departure.FAILED: Ended.FAILED,
    Departure.TAKEN: Ended.SUPERSEDED,
}
