"""Have reservations that wait follow what is known of places."""

from __future__ import annotations

from sliceform.controller.reconcile.commit import ask_anew, renew
from sliceform.controller.reconcile.kinds import turns_over
from sliceform.controller.reconcile.ledger import Fleet
from sliceform.states.slices import SliceState

_UNMADE = frozenset({SliceState.PENDING, SliceState.PLACED})


class Reservations:
    """Asks anew where the answer would be another; used by the loop's thread alone."""

    def __init__(self, fleet: Fleet) -> None:
        """Take whose they are."""
        self._fleet = fleet
        self._known = (-1, -1)

    def follow(self, *, nodes_changed: bool) -> None:
        """Let what waits for a place go where it may go now."""
        fleet, picture = self._fleet, self._fleet.picture
        picture.places.settle(picture.now, fleet.nodes if nodes_changed else None, self._waiting_since())
        fleet.place_map.settle(picture.now)
        known = (fleet.place_map.version, picture.places.version)
        if known != self._known:
            self._known = known
            renew(fleet)
            for life in picture.lives.values():
                if life.record.state in _UNMADE:
                    life.due = picture.now
        for life in turns_over(fleet):
            ask_anew(fleet, life)

    def due(self) -> float:
        """Return the loop time at which time alone changes what is known of places."""
        return min(self._fleet.picture.places.due(self._waiting_since()), self._fleet.place_map.due)

    def _waiting_since(self) -> float | None:
        """Return since when a slice waits for its reservation; None, too, if that decides nothing."""
        picture = self._fleet.picture
        if not picture.places.on_trial:
            return None
        return min((life.record.since for life in picture.lives.values() if life.waits_for_reservation), default=None)
