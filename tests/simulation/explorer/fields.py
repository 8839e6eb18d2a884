"""What makes a state: how every class of the core is read, and what is left out, with the reason.

Nothing is left out because it was forgotten: a field that is not named here counts as it is, a number with a fraction
that is not named fails, and so does an object of a class that is unknown.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .core import SETTINGS

#: States in which nothing asks since when.
_WORKING = frozenset({"ready", "running"})
#: Reasons of a drain by which its work is told that somebody asked for it.
_STOPPED_BY_ORDER = frozenset({"closed", "operator"})


@dataclass(frozen=True, slots=True)
class Ago:
    """A past moment that is compared with spans of so many seconds at most: what is longer ago is so long ago."""

    since: float
    span_s: float
    epoch: bool


def _ago(since: float, *spans: str, epoch: bool = False) -> Ago:
    """Read a past moment that these settings are compared with."""
    return Ago(since, max(SETTINGS[span] for span in spans), epoch)


class Reading(enum.Enum):
    """How the value of a field becomes part of a state's key."""

    #: A past moment: how long ago, up to the longest span that anything compares it with.
    AGO = "ago"
    #: A coming moment: in how long.
    DUE = "due"
    EPOCH_DUE = "epoch due"
    #: A number that is compared with a small limit only: equal from there on.
    FEW = "few"
    #: A span, the same wherever it is read.
    SPAN = "span"
    #: Words, of which only matters whether there are any.
    WHETHER = "whether"


AGO, DUE, EPOCH_DUE, FEW, SPAN, WHETHER = Reading


def _attempts(run: Any) -> list[Any]:
    """The attempt under way, those whose charge is open, and of the last its members: the next takes them again."""
    if not run.attempts:
        return []
    last = run.attempts[-1]
    open_ones = [*run.unsettled, *([run.active] if run.active is not None else [])]
    # How the last one ended decides whether the run goes on, until it does.
    judged = last.ended if run.active is None and not run.waiting else None
    # Whether it began less than `backoff_max_s` ago is asked of the second in a row that ends soon and of later ones.
    young = _ago(last.started_epoch_s, "backoff_max_s", epoch=True) if run.hasty and not run.waiting else None
    return [*open_ones, last.spec.members, judged, young]


def _blame_that_counts(state: Any) -> list[Any]:
    """What befell the slices that are there, or of attempts that go on."""
    ledger = state.core.ledger
    members = [member for attempt in ledger.attempts.values() for member in attempt.spec.members]
    return [(life, state.blame[life]) for life in dict.fromkeys([*ledger.fleet.lives, *members]) if life in state.blame]


def _since_of_slice(record: Any) -> Ago | None:
    """Since when it is in its state, unless nothing asks in that one."""
    return None if record.state in _WORKING else _ago(record.since, "pending_s", "placed_s", "release_stuck_s")


def _since_of_run(run: Any) -> Ago | None:
    return _ago(run.since, "overtake_s", "settle_s") if run.waiting else None


def _added_at(fleet: Any) -> list[Ago]:
    """How long a run that waits has seen no more slices: one of several sizes settles for fewer."""
    waiting = [run for run in fleet.runs if run.waiting and len(run.sizes) > 1]
    return [_ago(max(fleet.added_at, run.since), "settle_s") for run in waiting]


def _idle_since(fleet: Any) -> list[Any]:
    """Since when slices are idle: a run may grow into them, and between sizes that are far apart some are surplus.

    Surplus ones are given back only so long after anything came or went.
    """
    desired = fleet.desired
    # A run keeps the sizes that it was submitted with, whatever is wanted since.
    if len(desired.sizes) == 1 and all(len(run.sizes) == 1 for run in fleet.runs):
        return []
    idle = [life.record.since for life in fleet.lives.values() if life.record.state == "ready"]
    grows = [_ago(since, "scale_up_after_s") for since in idle]
    if len(desired.sizes) == 1 or all(desired.valid_size(count) == count for count in range(1, desired.largest)):
        return grows
    return [*grows, *(_ago(max(since, fleet.added_at, fleet.lost_at), "surplus_s") for since in idle)]


def _strikes(places: Any) -> dict[Any, Any]:
    """Failures of nodes, as long as they count or have led to a quarantine."""
    return {
        node: [min(kept.quarantines, 2), *(_ago(time, "quarantine_s") for time in kept.times)]
        for node, kept in places.strikes.items()
    }


def _asked_since(item: Any) -> Ago | None:
    """Since when something is asked for: of a grace, never longer than that of a drain, what is left counts."""
    return _ago(item.since, "drain_grace_s") if getattr(item.request, "grace_s", 0.0) else None


READ: dict[str, Reading | Callable[[Any], Any]] = {
    "Reservations._known": lambda kept: (
        kept._known == (kept._ledger.place_map.version, kept._ledger.fleet.places.version)
    ),
    "SliceRecord.since": _since_of_slice,
    "SliceRecord.deadline": EPOCH_DUE,
    "Life.heard": AGO,
    "Life.raylet_heard": AGO,
    "Life.drain_by": DUE,
    "Life.stop_by": DUE,
    "Life.release_by": DUE,
    "Life.due": DUE,
    # Asked for until it is placed; a copy of this says what it was asked with.
    "Life.asked": lambda life: life.asked if life.waits_for_reservation else None,
    "Holding.asked": lambda holding: holding.asked if holding.place is None else None,
    "Life.synced": lambda life: life.synced == life.version,
    "Notice.deadline_epoch_s": EPOCH_DUE,
    "HostView.notices": EPOCH_DUE,
    "SliceView.told": EPOCH_DUE,
    "Attempt.fences": DUE,
    "Attempt.stop_at": DUE,
    "Attempt.deadline": EPOCH_DUE,
    "Attempt.force_by": DUE,
    "Attempt.doubted_at": lambda attempt: _ago(attempt.doubted_at, "verdict_s"),
    "SliceRecord.reason": lambda record: record.reason in _STOPPED_BY_ORDER,
    "State.blame": _blame_that_counts,
    "RunRecord.attempts": _attempts,
    "RunRecord.since": _since_of_run,
    "RunRecord.not_before": DUE,
    "RunRecord.hasty": FEW,
    "RunRecord.cancel_by": DUE,
    "Fleet.closing_by": DUE,
    "Avoided.until": DUE,
    "Avoided.since": lambda avoided: _ago(avoided.since, "quarantine_s"),
    "Avoided.trial_s": SPAN,
    "Places.strikes": _strikes,
    "Fleet.added_at": _added_at,
    "Fleet.lost_at": _idle_since,
    "Pause.until": DUE,
    "Pause.count": FEW,
    "Vacancy.failures": lambda vacancy: vacancy.failures > 0,
    "Vacancy.not_before": DUE,
    "Outstanding.due": DUE,
    "Outstanding.since": _asked_since,
    "Notify.deadline_epoch_s": EPOCH_DUE,
    "Stop.grace_s": SPAN,
    "Release.grace_s": SPAN,
    "PlaceMap._joining": DUE,
    "HostNoticed.deadline_epoch_s": EPOCH_DUE,
    "Notified.deadline_epoch_s": EPOCH_DUE,
    "Holding.release_by": EPOCH_DUE,
    "HostView.failed": WHETHER,
    "SliceView.refused": WHETHER,
    "Attempt.superseded": WHETHER,
}

_ORIGIN = "what all times are measured from"
_WORDS = "words for people, from which nothing is decided"
_NAME = "a name, or counts names"
_CHANGE = "compared with itself only"
_CACHE = "made from what is counted"
_FIXED = "the same in all states of a configuration"

LEFT_OUT: dict[str, str] = {
    "HostRecord.since": "told, and decides nothing",
    "Attempt.started_epoch_s": "among the attempts of the run",
    "HostRecord.reason": "told, and decides nothing",
    "Attempt.since": "told, and decides nothing",
    "Attempt.at": "told, and decides nothing",
    "Attempt.reason": "told, and decides nothing",
    "Attempt.detail": _WORDS,
    "RunRecord.at": "told, and decides nothing",
    "RunRecord.reason": "told, and decides nothing",
    "RunRecord.unsettled": "among the attempts",
    "Life.asked_at": "matters where accelerators are of several kinds",
    "State.configuration": _FIXED,
    "State.clock": _ORIGIN,
    "State.budget": "states with more left go first",
    "State.runs": "those that go on are among the runs of the fleet, the others are over",
    "World.shape": _FIXED,
    "World.table": "the node table of the fleet",
    "Node.pod_type": _FIXED,
    "Node.address": _FIXED,
    "Node.death": _WORDS,
    "Node.topology": _FIXED,
    "Node.accelerator": _FIXED,
    "Node.resources": _FIXED,
    "Node.labels": _FIXED,
    "RunRecord.options": _FIXED,
    "RunRecord.work": _FIXED,
    "AttemptSpec.work": _FIXED,
    "AttemptSpec.runtime_env": _FIXED,
    "AttemptSpec.hosts_per_slice": _FIXED,
    "HostRecord.id": _NAME,
    "HostRecord.slice_id": _NAME,
    "HostRecord.rank": _NAME,
    "SliceView.slice_id": _NAME,
    "World.fence_s": _FIXED,
    "World.made": _NAME,
    "World.epoch": _ORIGIN,
    "Reconciler.backend": "the world of the state",
    "Fleet.settings": _FIXED,
    "Places.settings": _FIXED,
    "Ledger.shape": _FIXED,
    "Ledger.settings": _FIXED,
    "Ledger.history": "tells, and decides nothing",
    "Ledger.engines": _FIXED,
    "Ledger.published": "wakes threads; there are none",
    "Ledger.attempts": "those of the runs that are under way, as is checked",
    "PlaceMap._shape": _FIXED,
    "Reconciler.board": "shows, and decides nothing",
    "Reconciler._ticks": "measures",
    "Reconciler._inquiry": "asks for words; this cluster never answers",
    "Observer._observed_at": "matters where the node table is not read for long; here it is, or fails, each second",
    "Observer._monotonic": _ORIGIN,
    "Observer._ledger": "the ledger of the reconciler",
    "Observer._inquiry": "asks for words; this cluster never answers",
    "Reservations._ledger": "the ledger of the reconciler",
    "Reconciler._run_of": _FIXED,
    "Reconciler._record": _FIXED,
    "Reconciler.begun_at": _ORIGIN,
    "Reconciler._clock": _ORIGIN,
    "LoopTime._last": _ORIGIN,
    "LoopTime.now": _ORIGIN,
    "LoopTime._max_gap_s": _FIXED,
    "Fleet.now": _ORIGIN,
    "Fleet.epoch": _ORIGIN,
    "Fleet.next_number": _NAME,
    "Ledger.tick": _ORIGIN,
    "Ledger.room": _CACHE,
    "Inbox._wake": "wakes a thread; there is none",
    "SliceRecord.at": "told, and decides nothing",
    "HostRecord.at": "told, and decides nothing",
    "SliceRecord.generation": "told, and decides nothing",
    "Desired.generation": "told, and decides nothing",
    "SliceRecord.replaces": _NAME,
    "SliceRecord.detail": _WORDS,
    "HostRecord.detail": _WORDS,
    "SliceRecord.version": _CHANGE,
    "SliceView.version": _CHANGE,
    "HostView.address": _WORDS,
    "Loss.detail": _WORDS,
    "Outcome.detail": _WORDS,
    "Left.detail": _WORDS,
    "Avoided.detail": _WORDS,
    "Outstanding.detail": _WORDS,
    "Outstanding.tries": "only makes a delay longer that is as long as it gets",
    "Outstanding.failures": "the same",
    "Backoff.rng": _FIXED,
    "Backoff.initial_s": _FIXED,
    "Backoff.max_s": _FIXED,
    "Vacancy.detail": _WORDS,
    "RunRecord.submitted_at": "matters for runs with a limit; here they have none",
    "RunRecord.cancel_detail": _WORDS,
    "Outbox._rng": _FIXED,
    "Outbox._initial_s": _FIXED,
    "Outbox._max_s": _FIXED,
    "Attempt.ended_epoch_s": "told, and decides nothing",
    "AttemptSpec.previous": _WORDS,
    "AttemptSpec.number": _NAME,
    "AttemptSpec.jax_shutdown_s": _FIXED,
    "AttemptSpec.env": _FIXED,
    "RunRecord.submitted_epoch_s": "told, and decides nothing",
    "RunRecord.detail": _WORDS,
    "RunRecord.on_end": _FIXED,
    "RunRecord.tries": _NAME,
    "Places.version": _CHANGE,
    "Places._names": _CACHE,
    "PlaceMap.version": _CHANGE,
    "PlaceMap._outlook": _CACHE,
    "PlaceMap._seen": _CACHE,
    "PlaceMap._avoided": _CACHE,
    "PlaceMap._changed": _CACHE,
    "PlaceMap.places": _CACHE,
    "PlaceMap._faulty": _CACHE,
    "PlaceMap.usable": _CACHE,
    "PlaceMap._members": _CACHE,
    "PlaceMap._place_of": _CACHE,
    "PlaceMap._nodes": "the node table of the fleet",
}

#: Fields whose order says nothing.
UNORDERED = frozenset({"Fleet.nodes", "Ledger.users", "PlaceMap.holders", "PlaceMap.owners"})

#: Caches that refer to what is copied: a copy has none.
REMADE: dict[str, Any] = {"PlaceMap._outlook": None}

#: Classes of which all states share one object: it never changes, or it only tells.
SHARED = frozenset(
    {
        "Condition",
        "Engine",
        "Event",
        "History",
        "Steady",
        "Settings",
        "TpuSlice",
        "Silent",
        "Configuration",
    }
)

#: Classes of the core that are not dataclasses; all of their attributes count.
PLAIN = frozenset(
    {
        "Clock",
        "Inbox",
        "Inquiry",
        "LoopTime",
        "Observer",
        "Outbox",
        "PlaceMap",
        "Reconciler",
        "Reservations",
        "Usable",
        "World",
    }
)
