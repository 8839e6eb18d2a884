"""Take in what came since the last tick: how much time counts, who was heard, and what was seen."""

from __future__ import annotations

import structlog

from sliceform.controller.model.events import (
    EffectFailed,
    Event,
    Explained,
    HostDied,
    NodesSeen,
    ObservationFailed,
    ProcessEnded,
    ProcessGone,
)
from sliceform.controller.reconcile.commit import commit
from sliceform.controller.reconcile.conduct import Conductor
from sliceform.controller.reconcile.decide.fold import fold, fold_node
from sliceform.controller.reconcile.decide.step import Step
from sliceform.controller.reconcile.inputs import Inputs
from sliceform.controller.reconcile.inquiry import Inquiry
from sliceform.controller.reconcile.ledger import Fleet
from sliceform.controller.reconcile.loop_time import LoopTime
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: A node table not read for so many periods (plus five seconds) counts as a failed observation.
_STALE_READS = 5


class Observer:
    """Brings what is known up to date; used by the loop's thread alone."""

    def __init__(self, fleet: Fleet, conductor: Conductor, inquiry: Inquiry, monotonic: float) -> None:
        """Take what it writes into, and the time at which the fleet begins, by the monotonic clock."""
        self._fleet = fleet
        self._conductor = conductor
        self._inquiry = inquiry
        self._time = LoopTime(monotonic, max_gap_s=2 * fleet.settings.resync_s)
        self._observed_at = self._monotonic = monotonic
        self._nodes_changed = True

    def take(self, inputs: Inputs) -> None:
        """Take the inputs of a tick in, all but its orders."""
        self._monotonic = inputs.monotonic
        for beat in inputs.beats:
            self.hear(*beat)
        self._look_at_the_time(inputs)
        for event in inputs.events:
            self._take(event)

    def hear(self, slice_id: str, rank: int, raylet_ok: bool) -> None:  # noqa: FBT001 - as a beat has it
        """Note who was heard: since the last tick, so at its time at the earliest; may be called on any thread."""
        picture = self._fleet.picture
        life = picture.lives.get(slice_id)
        if life is not None:
            life.heard[rank] = picture.now
            if raylet_ok:
                life.raylet_heard[rank] = picture.now

    def nodes_changed(self) -> bool:
        """Return whether the node table has changed since this was asked last, or was not read before."""
        changed, self._nodes_changed = self._nodes_changed, False
        return changed

    def _look_at_the_time(self, inputs: Inputs) -> None:
        """Count the time since the last tick, unless the look at the cluster that ended it failed."""
        fleet, picture = self._fleet, self._fleet.picture
        looks = [event for event in inputs.events if isinstance(event, NodesSeen | ObservationFailed)]
        if looks and isinstance(looks[-1], ObservationFailed):
            self._take(looks[-1])
        stale_s = _STALE_READS * fleet.settings.nodes_every_s + 5.0
        if not fleet.blind and inputs.monotonic - self._observed_at > stale_s:
            fleet.blind = f"the node table was not read for {stale_s:g} s"
        picture.now = self._time.tick(inputs.monotonic, blind=bool(fleet.blind))
        picture.epoch = inputs.epoch
        picture.blind = bool(fleet.blind)

    def _take(self, event: Event) -> None:
        fleet, picture = self._fleet, self._fleet.picture
        if isinstance(event, NodesSeen):
            self._take_nodes(event)
            return
        if isinstance(event, ObservationFailed):
            if not fleet.blind:
                log.warning("observation_failed", tick=fleet.tick, detail=event.detail)
            fleet.blind = event.detail or "the observation failed"
            picture.blind = True
            return
        if isinstance(event, Explained):
            self._inquiry.answered(picture, event)
            return
        if isinstance(event, ProcessEnded):
            self._conductor.ended(event)
        elif isinstance(event, ProcessGone):
            self._conductor.gone(event)
        elif isinstance(event, HostDied):
            self._conductor.died(event)
        life = picture.lives.get(event.life)
        if life is None:
            return
        if isinstance(event, EffectFailed):
            self._effect_failed(event)
        else:
            fold(life, event, picture.now)

    def _take_nodes(self, event: NodesSeen) -> None:
        """Take in a complete read: only nodes whose row changed can change what is known of a slice."""
        fleet, picture = self._fleet, self._fleet.picture
        before = fleet.nodes
        fleet.nodes = event.nodes
        fleet.blind, picture.blind = "", False
        self._observed_at = self._monotonic
        self._nodes_changed = self._nodes_changed or bool(event.changed)
        # In order: what a set goes through first differs from process to process.
        changed = sorted(event.changed)
        fleet.place_map.take(event.nodes, changed, picture.now)
        picture.surveyed = True
        for node_id in changed:
            row = event.nodes.get(node_id)
            for slice_id, rank in fleet.users.get(node_id, ()):
                life = picture.lives.get(slice_id)
                if life is not None:
                    fold_node(life, rank, node_id, row)
            if row is not None and row.alive and node_id not in before:
                picture.pause = picture.pause.end()

    def _effect_failed(self, event: EffectFailed) -> None:
        fleet, picture = self._fleet, self._fleet.picture
        item = fleet.outbox.failed(event.life, event.effect, picture.now, event.detail)
        if item is None:
            return
        wait_s = item.due - picture.now
        detail = f"{event.effect.value} failed ({item.failures}), again in {wait_s:.1f} s: {event.detail}"
        commit(fleet, Step(event.life, None, None, Reason.EFFECT_FAILED, detail))
