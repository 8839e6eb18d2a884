"""Runs and their attempts as the loop's thread holds them, and which slices take part in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sliceform.controller.model.effects import AttemptSpec
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.model.orders import Submit
from sliceform.controller.model.run_options import RunOptions
from sliceform.states.attempts import AttemptState
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunState

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


class Clear(StrEnum):
    """How a host came to be clear of an attempt."""

    SEEN_GONE = "its processes were seen gone"
    HOST_DIED = "host died"
    BY_TIME = "fenced by time"


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


@dataclass(slots=True, eq=False)
class Attempt:
    """One try: its slices by rank and how each of its hosts ended. `ATTEMPT_TABLE` moves it."""

    spec: AttemptSpec
    started_epoch_s: float
    #: Where it is in its life, as in any record: since when, loop time and epoch seconds, and why.
    state: AttemptState | None = None
    since: float = 0.0
    at: float = 0.0
    reason: Reason | None = None
    detail: str = ""
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
    #: Ranks of hosts that were seen to have died as a whole.
    died: set[int] = field(default_factory=set)
    #: How hosts came to be clear of it, by rank; and at which loop time those that are not will count as clear.
    clear: dict[int, Clear] = field(default_factory=dict)
    fences: dict[int, float] = field(default_factory=dict)
    #: When its processes are to be stopped by force, loop time; None = it is going well.
    stop_at: float | None = None
    #: By when its work was told to stop, epoch seconds; None = it was not, or no deadline is known.
    deadline: float | None = None
    #: By when its processes are to be gone, loop time, as `Stop` was asked for last; None = it was not.
    force_by: float | None = None
    #: Loop time at which something ended that may prove to be the death of a node; None if nothing did.
    doubted_at: float | None = None
    #: Why we end it on purpose; empty if we do not.
    superseded: str = ""
    #: How it left; None before.
    verdict: Verdict | None = None
    #: When nothing of it was left, or every host had returned.
    ended_epoch_s: float | None = None
    #: Node id and address of every host, by rank, as far as known when it started.
    nodes: tuple[tuple[str | None, str], ...] = ()

    @property
    def id(self) -> str:
        """Its key, `run-1/2`."""
        return self.spec.key

    @property
    def goes_on(self) -> bool:
        """Whether something of it may still run."""
        return self.state in _UNDER_WAY

    @property
    def ended(self) -> Ended | None:
        """How it left; None while it goes on, or while that is not known yet."""
        return None if self.verdict is None else self.verdict.ended

    @property
    def why_ended(self) -> str:
        """Why it left so, in a sentence; empty before."""
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
        """Write down that a slice left; what happens to that slice later counts no more, but for corrections."""
        self.departures.setdefault(slice_id, left)

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


@dataclass(slots=True, repr=False, eq=False)
class RunRecord:
    """One submitted run, on the loop's side. `RUN_TABLE` moves it."""

    id: str
    work: Any
    options: RunOptions
    submitted_epoch_s: float
    #: Called once, on the loop's thread, when the run is over; only stores and wakes.
    on_end: Callable[[RunRecord], None]
    #: Where it is in its life, as in any record: since when, loop time and epoch seconds, and why.
    state: RunState | None = None
    since: float = 0.0
    at: float = 0.0
    reason: Reason | None = None
    detail: str = ""
    #: Valid sizes, ascending: its own, or those that were wanted when it was submitted.
    sizes: tuple[int, ...] = ()
    #: Loop time at which it was taken in.
    submitted_at: float = 0.0
    #: The first and the newest, up to `ATTEMPTS_KEPT`; and how many have begun.
    attempts: list[Attempt] = field(default_factory=list)
    tries: int = 0
    #: Attempts of which nothing runs any more, and whose charge is open.
    unsettled: list[Attempt] = field(default_factory=list)
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

    @classmethod
    def of(cls, order: Submit, on_end: Callable[[RunRecord], None] = lambda _: None) -> RunRecord:
        """Return the record of a run that was submitted, before it is taken in."""
        return cls(order.run_id, order.work, order.options, order.submitted_epoch_s, on_end)

    @property
    def forgotten(self) -> int:
        """How many attempts between the first and the newest are not kept any more."""
        return self.tries - len(self.attempts)

    def begin(self, attempt: Attempt) -> None:
        """Take a new attempt in, and let go of what earlier ones hold that nobody can ask for any more."""
        if self.attempts and self.attempts[-1].verdict is not None:
            self.attempts[-1].shed()
        self.attempts.append(attempt)
        self.tries += 1
        if len(self.attempts) > ATTEMPTS_KEPT:
            del self.attempts[1]

    @property
    def active(self) -> Attempt | None:
        """The attempt that is under way."""
        if self.attempts and self.attempts[-1].goes_on:
            return self.attempts[-1]
        return None

    @property
    def waiting(self) -> bool:
        """Whether it waits for slices."""
        return self.state is RunState.WAITING

    @property
    def stands(self) -> str:
        """`waiting`, `running`, or how it ended."""
        return str(self.ended or self.state or RunState.WAITING)

    def __repr__(self) -> str:
        """Name it, with its state."""
        return f"<RunRecord {self.id}: {self.stands}>"


def assign(previous: Sequence[str], available: Sequence[str], size: int) -> tuple[str, ...]:
    """Return `size` slices by slice rank.

    Survivors keep their rank at the same size and only lost ranks move; smaller, they close ranks in order; larger, new
    ones are appended. `available` is in order of preference and holds at least `size` slices.
    """
    there = set(available)
    survivors = [life for life in previous if life in there]
    known = set(survivors)
    fresh = [life for life in available if life not in known]
    if size == len(previous):
        others = iter(fresh)
        return tuple(life if life in there else next(others) for life in previous)
    return tuple((survivors + fresh)[:size])


def may_retry(run: RunRecord) -> bool:
    """Whether its budgets allow another attempt, whichever of them those are charged to whose charge is open."""
    more = len(run.unsettled)
    return run.preemptions + more <= run.options.max_preemptions and run.failures + more <= run.options.max_failures


_UNDER_WAY = frozenset({AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING})
