"""How long slices take to be placed, to become ready and to be replaced, from the changes that tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sliceform.states.history import Change
from sliceform.states.reasons import Reason
from sliceform.states.slices import LIVE, SliceTrigger

#: Losses remembered that nobody has replaced yet; the oldest are forgotten beyond that.
_LOSSES_KEPT = 10_000


class Took(NamedTuple):
    """One thing that a slice has just done."""

    #: `place`, `ready` or `replace`.
    what: str
    seconds: float


class Waits:
    """Follows slices from their creation; a machine's clock that is set back makes 0 seconds, never less."""

    def __init__(self) -> None:
        """Know no slices."""
        #: When a slice that is not ready yet was created.
        self._created: dict[str, float] = {}
        #: Since when the slice is missing that this one, which is not ready yet, stands in for.
        self._missing: dict[str, float] = {}
        #: Since when a slice is missing that nobody stands in for yet.
        self._lost: dict[str, float] = {}

    def of(self, change: Change) -> Iterator[Took]:
        """Take the next change; give what it completes."""
        if change.kind != "slice" or change.is_note:
            return
        key, at = change.key, change.at
        if change.trigger == SliceTrigger.CREATE:
            self._created[key] = at
            if change.cause in self._lost:
                self._missing[key] = self._lost.pop(change.cause)
        elif change.trigger == SliceTrigger.PLACE and key in self._created:
            yield Took("place", max(0.0, at - self._created[key]))
        elif change.trigger == SliceTrigger.PREPARE:
            if key in self._created:
                yield Took("ready", max(0.0, at - self._created.pop(key)))
            if key in self._missing:
                yield Took("replace", max(0.0, at - self._missing.pop(key)))
        elif change.source in LIVE and change.dest not in LIVE:
            self._leaves(change)

    def _leaves(self, change: Change) -> None:
        """Remember since when the slice is missing: if it never became ready, since the one before it left."""
        self._created.pop(change.key, None)
        since = self._missing.pop(change.key, change.at)
        if change.trigger == SliceTrigger.DRAIN and change.reason != Reason.OPERATOR:
            return
        self._lost[change.key] = since
        if len(self._lost) > _LOSSES_KEPT:
            del self._lost[next(iter(self._lost))]
