"""Ask the cluster now and then what keeps slices pending, so that the history can say it."""

from __future__ import annotations

from sliceform.controller.model.backend import Backend
from sliceform.controller.model.events import Explained
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.fold import fold
from sliceform.controller.reconcile.decide.life import Life
from sliceform.states.slices import SliceState

#: A slice that is pending for less than this needs no reason, and no two questions are closer, seconds.
_PATIENCE_S = 5.0
#: What goes on waiting is asked about less often: after this part of its wait, but at least so often, seconds.
_PART = 0.5
_SELDOM_S = 60.0
#: The cluster is asked for at most one in so many parts of the time.
_IDLE_PARTS = 10
#: A question without an answer is given up after so long, seconds.
_LOST_S = 60.0


class Inquiry:
    """One question at a time for all slices that are pending, as what stands in the way of one does for each."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._due = 0.0
        self._asked_at = 0.0

    def ask(self, fleet: Fleet, backend: Backend) -> None:
        """Ask about the slice that is pending for longest, if it is time to."""
        if fleet.now < self._due or fleet.blind or fleet.closing_by is not None:
            return
        waiting = _waiting(fleet)
        self._due = fleet.now + (_LOST_S if waiting else _PATIENCE_S)
        if waiting:
            self._asked_at = fleet.now
            backend.inquire(waiting[0].record.id, None, fleet.places.reasons())

    def answered(self, fleet: Fleet, event: Explained) -> None:
        """Take in what the cluster said of one of the slices that are pending, for all of them."""
        asked = fleet.lives.get(event.slice_id)
        if asked is None or asked.record.state is not SliceState.PENDING:
            return
        waiting = _waiting(fleet)
        youngest_s = min((fleet.now - life.record.since for life in waiting), default=0.0)
        pause_s = min(_SELDOM_S, max(_PATIENCE_S, _PART * youngest_s))
        self._due = fleet.now + max(pause_s, _IDLE_PARTS * (fleet.now - self._asked_at))
        for life in waiting:
            fold(life, event, fleet.now)


def _waiting(fleet: Fleet) -> list[Life]:
    """Return the slices that are pending for long enough, oldest first."""
    return [
        life
        for life in fleet.lives.values()
        if life.record.state is SliceState.PENDING and fleet.now - life.record.since >= _PATIENCE_S
    ]
