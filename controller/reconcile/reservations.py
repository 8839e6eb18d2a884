"""Have reservations that wait follow what is known of places."""

from __future__ import annotations

from sliceform.controller.reconcile.kinds import turns_over
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.requests import ask_anew, renew
from sliceform.states.slices import SliceState

_UNMADE = frozenset({SliceState.PENDING, SliceState.PLACED})


class Reservations:
    """Asks anew where the answer would be another; used by the loop's thread alone."""

    def __init__(self, ledger: Ledger) -> None:
        """Take whose they are."""
        self._ledger = ledger
        self._known = (-1, -1)

    def follow(self, *, nodes_changed: bool) -> None:
        """Let what waits for a place go where it may go now."""
        ledger, fleet = self._ledger, self._ledger.fleet
        fleet.places.settle(fleet.now, fleet.nodes if nodes_changed else None, self._waiting_since())
        ledger.place_map.settle(fleet.now)
        known = (ledger.place_map.version, fleet.places.version)
        if known != self._known:
            self._known = known
            renew(ledger)
            for life in fleet.lives.values():
                if life.record.state in _UNMADE:
                    life.due = fleet.now
        for life in turns_over(ledger):
            ask_anew(ledger, life)

    def due(self) -> float:
        """Return the loop time at which time alone changes what is known of places."""
        return min(self._ledger.fleet.places.due(self._waiting_since()), self._ledger.place_map.due)

    def _waiting_since(self) -> float | None:
        """Return since when a slice waits for its reservation; None, too, if that decides nothing."""
        fleet = self._ledger.fleet
        if not fleet.places.on_trial:
            return None
        return min((life.record.since for life in fleet.lives.values() if life.waits_for_reservation), default=None)
