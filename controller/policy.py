"""What the controller remembers between ticks to decide well: backoff, places to avoid, when to stop growing.

Plain values that the loop's thread owns; `plan` only reads them. No I/O and no clock: `now` is loop time, seconds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sliceform.controller.observed import Node
from sliceform.controller.settings import Settings


@dataclass(slots=True)
class Backoff:
    """Delay between tries that grows with every failure in a row, with jitter so that fleets do not march in step."""

    initial_s: float
    max_s: float
    rng: random.Random
    failures: int = 0
    until: float = 0.0

    def failed(self, now: float) -> None:
        """Count a failure and set the time of the next try: between half and the whole of the doubled delay."""
        delay = min(self.max_s, self.initial_s * 2 ** min(self.failures, 30))
        self.failures += 1
        self.until = now + delay * self.rng.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0
        self.until = 0.0


class AvoidCause(StrEnum):
    """Why a place is not used now."""

    LOST = "lost"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Avoided:
    """A place that is not used now."""

    cause: AvoidCause
    until: float
    #: Nodes that must be seen dead for the place to be used again before `until`; empty for a quarantine.
    nodes: frozenset[str]
    detail: str


@dataclass(slots=True)
class Places:
    """Places (slice names on TPU, node ids elsewhere) to keep away from, and why."""

    settings: Settings
    avoided: dict[str, Avoided] = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)
    #: `names()` as long as nothing changed: every new slice asks for it.
    _names: frozenset[str] | None = None

    def lost(self, place: str, nodes: frozenset[str], now: float, detail: str) -> None:
        """Keep away from a lost place until its old nodes are seen dead, at most `avoid_lost_s`."""
        if place not in self.avoided:
            self.avoided[place] = Avoided(AvoidCause.LOST, now + self.settings.avoid_lost_s, nodes, detail)
            self._names = None

    def failed(self, place: str, now: float, detail: str) -> bool:
        """Count a slice that could not be made there; return whether the place is now in quarantine."""
        self.strikes[place] = self.strikes.get(place, 0) + 1
        if self.strikes[place] < self.settings.quarantine_after:
            return False
        del self.strikes[place]
        until = now + self.settings.quarantine_s
        self.avoided[place] = Avoided(AvoidCause.QUARANTINED, until, frozenset(), detail)
        self._names = None
        return True

    def worked(self, place: str) -> None:
        """Forget failures of a place that work has gone through on."""
        self.strikes.pop(place, None)

    def settle(self, now: float, is_dead: Mapping[str, Node] | None = None) -> bool:
        """Let go of places whose time is over or whose old nodes are dead; return whether there were any."""
        if not self.avoided:
            return False
        over = [place for place, avoided in self.avoided.items() if self._over(avoided, now, is_dead)]
        for place in over:
            del self.avoided[place]
            self._names = None
        return bool(over)

    @staticmethod
    def _over(avoided: Avoided, now: float, nodes: Mapping[str, Node] | None) -> bool:
        if now >= avoided.until:
            return True
        if not avoided.nodes or nodes is None:
            return False
        return all((row := nodes.get(node)) is None or not row.alive for node in avoided.nodes)

    def names(self) -> frozenset[str]:
        """Return the places to keep away from now."""
        if self._names is None:
            self._names = frozenset(self.avoided)
        return self._names

    @property
    def due(self) -> float:
        """The loop time at which the next one may be used again."""
        return min((avoided.until for avoided in self.avoided.values()), default=float("inf"))


@dataclass(slots=True)
class Growth:
    """Whether to go on asking for more slices than the size that has been reached.

    A surplus that has found no use for `surplus_s` goes back, and asking for the next size pauses, twice as long each
    time, unless new capacity is seen.
    """

    surplus_s: float
    #: When a slice became ready, or the desired count changed, last.
    changed_at: float = 0.0
    paused_until: float = 0.0
    pauses: int = 0

    def changed(self, now: float) -> None:
        """Note that a slice has become ready."""
        self.changed_at = now

    def pause(self, now: float) -> None:
        """Stop asking for a while."""
        self.paused_until = now + self.surplus_s * 2 ** min(self.pauses, 6)
        self.pauses += 1

    def resume(self) -> None:
        """Ask again: the desired count changed, or new capacity is there."""
        self.paused_until = 0.0

    def reset(self, now: float) -> None:
        """Begin anew for another desired count."""
        self.changed_at = now
        self.paused_until = 0.0
        self.pauses = 0

    def paused(self, now: float) -> bool:
        """Whether growth is paused."""
        return now < self.paused_until
