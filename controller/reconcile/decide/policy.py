"""What the controller remembers between ticks to decide well: what to try again when, and which places to avoid.

Plain values that the loop's thread owns; `plan` only reads them. No I/O and no clock: `now` is loop time, seconds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from sliceform.controller.model.events import Node
from sliceform.controller.model.settings import Settings


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay between tries that grows with every failure in a row, with jitter so that fleets do not march in step."""

    initial_s: float
    max_s: float
    rng: random.Random

    def until(self, failures: int, now: float) -> float:
        """Return the time of the next try after so many failures: half to the whole of the doubled delay from now."""
        delay = min(self.max_s, self.initial_s * 2.0 ** min(failures - 1, 30))
        return now + delay * self.rng.uniform(0.5, 1.0)


class Vacancy(NamedTuple):
    """A slice that is gone and has no replacement yet. What fails is tried again later; nothing else waits for that."""

    slice_id: str
    #: It is, or stands for, one that was lost or taken; otherwise all that failed was a try for more.
    lost: bool
    #: Slices that failed here one after the other.
    failures: int = 0
    #: Loop time before which it is not replaced.
    not_before: float = 0.0
    #: Why the last of them failed.
    detail: str = ""

    @classmethod
    def of(cls, slice_id: str, before: Vacancy | None, *, lost: bool = False) -> Vacancy:
        """Return the one that a slice leaves which stands for `before`; None if it was ready, or stands for nobody."""
        if before is None:
            return cls(slice_id, lost)
        return cls(slice_id, lost or before.lost, before.failures, detail=before.detail)

    def failed(self, backoff: Backoff, now: float, detail: str) -> Vacancy:
        """Count one more failure, and wait."""
        failures = self.failures + 1
        return self._replace(failures=failures, not_before=backoff.until(failures, now), detail=detail)


@dataclass(frozen=True, slots=True)
class Pause:
    """That the largest size is not tried for, because capacity for it was not found; forgotten when it was reached."""

    until: float = 0.0
    #: Pauses so far.
    count: int = 0

    def begin(self, now: float, surplus_s: float) -> Pause:
        """Pause, twice as long each time, up to 16 times `surplus_s`."""
        return Pause(now + surplus_s * 2.0 ** min(self.count, 4), self.count + 1)

    def end(self) -> Pause:
        """Try again now."""
        return Pause(0.0, self.count)


class AvoidCause(StrEnum):
    """Why a place is not used now."""

    LOST = "lost"
    QUARANTINED = "quarantined"
    #: A person said so.
    ORDERED = "ordered"


@dataclass(frozen=True, slots=True)
class Avoided:
    """A place that is not used now."""

    cause: AvoidCause
    until: float
    #: Nodes that it is about: the place may be used again before `until` once none of them is seen alive.
    nodes: frozenset[str]
    detail: str
    #: A quarantine: since when, and how long a slice has to wait for its reservation until it is broken off, seconds.
    since: float = 0.0
    trial_s: float = float("inf")

    def trial_at(self, waiting_since: float | None) -> float:
        """Return when the place is tried though its time is not over; `waiting_since` is None if no slice waits."""
        return float("inf") if waiting_since is None else max(self.since, waiting_since) + self.trial_s


@dataclass(slots=True)
class _Strikes:
    """How often slices failed because of one node."""

    #: Loop times of the failures that still count.
    times: list[float] = field(default_factory=list)
    #: Quarantines in a row.
    quarantines: int = 0


@dataclass(slots=True)
class Places:
    """Places (slice names on TPU, node ids elsewhere) to keep away from, and why."""

    settings: Settings
    avoided: dict[str, Avoided] = field(default_factory=dict)
    #: By node id.
    strikes: dict[str, _Strikes] = field(default_factory=dict)
    #: Grows with every change of `avoided`.
    version: int = 0
    #: `names()` as long as nothing changed: every new slice asks for it.
    _names: frozenset[str] | None = None

    def lost(self, place: str, nodes: frozenset[str], now: float, detail: str) -> None:
        """Keep away from a place until none of the nodes lost there is seen alive, at most for `avoid_lost_s`."""
        if place not in self.avoided:
            self._avoid(place, Avoided(AvoidCause.LOST, now + self.settings.avoid_lost_s, nodes, detail))

    def failed(self, place: str, node: str, now: float, detail: str) -> bool:
        """Count a slice that failed at a place because of a node; return whether the place is now in quarantine.

        A failure counts for `quarantine_s`. A quarantine lasts as long; if slices wait, it is broken off to try the
        place once more, after a minute at first, and twice as long each time that it fails again.
        """
        settings = self.settings
        strikes = self.strikes.setdefault(node, _Strikes())
        young = [time for time in strikes.times if now - time < settings.quarantine_s]
        strikes.times = [*young, now][-settings.quarantine_after :]
        if len(strikes.times) < settings.quarantine_after:
            return False
        trial_s = settings.backoff_max_s * 2.0 ** min(strikes.quarantines, 30)
        strikes.quarantines += 1
        until = now + settings.quarantine_s
        self._avoid(place, Avoided(AvoidCause.QUARANTINED, until, frozenset({node}), detail, now, trial_s))
        return True

    def avoid(self, place: str, until: float | None, detail: str) -> None:
        """Keep away from a place because a person said so; `until` is loop time, None = until it is allowed."""
        self.avoided[place] = Avoided(AvoidCause.ORDERED, float("inf") if until is None else until, frozenset(), detail)
        self._change()

    def allow(self, place: str) -> None:
        """Use a place again, and forget what failed there."""
        avoided = self.avoided.pop(place, None)
        for node in (place, *(avoided.nodes if avoided else ())):
            self.strikes.pop(node, None)
        self._change()

    def worked(self, node: str) -> None:
        """Forget failures of a node that work has gone through on."""
        self.strikes.pop(node, None)

    def settle(self, now: float, nodes: Mapping[str, Node] | None = None, waiting_since: float | None = None) -> None:
        """Let go of places whose time is over or whose nodes are gone, and of failures that count no longer.

        `nodes` is the node table if it has changed; `waiting_since` is since when a slice waits for its reservation.
        """
        over = [place for place, avoided in self.avoided.items() if self._over(avoided, now, nodes, waiting_since)]
        for place in over:
            del self.avoided[place]
            self._change()
        if nodes is not None:
            self.strikes = {node: kept for node, kept in self.strikes.items() if _alive(nodes, node)}

    @staticmethod
    def _over(avoided: Avoided, now: float, nodes: Mapping[str, Node] | None, waiting_since: float | None) -> bool:
        if now >= min(avoided.until, avoided.trial_at(waiting_since)):
            return True
        if avoided.cause is AvoidCause.ORDERED:
            return False
        return nodes is not None and not any(_alive(nodes, node) for node in avoided.nodes)

    def _avoid(self, place: str, avoided: Avoided) -> None:
        if place in self.avoided and self.avoided[place].cause is AvoidCause.ORDERED:
            return
        self.avoided[place] = avoided
        self._change()

    def _change(self) -> None:
        self.version += 1
        self._names = None

    def names(self) -> frozenset[str]:
        """Return the places to keep away from now."""
        if self._names is None:
            self._names = frozenset(self.avoided)
        return self._names

    def reasons(self) -> dict[str, str]:
        """Return them with the reason for each, in words."""
        return {place: f"{row.cause}: {row.detail}" for place, row in self.avoided.items()}

    @property
    def on_trial(self) -> bool:
        """Whether one of them is tried sooner if a slice waits."""
        return any(row.cause is AvoidCause.QUARANTINED for row in self.avoided.values())

    def due(self, waiting_since: float | None) -> float:
        """Return the loop time at which the next one may be used again."""
        rows = self.avoided.values()
        return min((min(row.until, row.trial_at(waiting_since)) for row in rows), default=float("inf"))


def _alive(nodes: Mapping[str, Node], node: str) -> bool:
    row = nodes.get(node)
    return row is not None and row.alive
