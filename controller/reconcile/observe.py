"""Take in what came since the last tick: how much time counts, who was heard, and what was seen."""

from __future__ import annotations

import structlog

from sliceform.controller.model.events import (
    EffectFailed,
    Event,
    Explained,
    HostDied,
    Node,
    NodesSeen,
    ObservationFailed,
    ProcessEnded,
    ProcessGone,
)
from sliceform.controller.reconcile.decide.fold import fold, fold_node
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Clear
from sliceform.controller.reconcile.inputs import Inputs
from sliceform.controller.reconcile.inquiry import Inquiry
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.loop_time import LoopTime
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: A node table not read for so many periods (plus five seconds) counts as a failed observation.
_STALE_READS = 5


class Observer:
    """Brings what is known up to date; used by the loop's thread alone."""

    def __init__(self, ledger: Ledger, inquiry: Inquiry, monotonic: float) -> None:
        """Take what it writes into, and the time at which the fleet begins, by the monotonic clock."""
        self._ledger = ledger
        self._inquiry = inquiry
        self._time = LoopTime(monotonic, max_gap_s=2 * ledger.settings.resync_s)
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
        fleet = self._ledger.fleet
        life = fleet.lives.get(slice_id)
        if life is not None:
            life.heard[rank] = fleet.now
            if raylet_ok:
                life.raylet_heard[rank] = fleet.now

    def nodes_changed(self) -> bool:
        """Return whether the node table has changed since this was asked last, or was not read before."""
        changed, self._nodes_changed = self._nodes_changed, False
        return changed

    def _look_at_the_time(self, inputs: Inputs) -> None:
        """Count the time since the last tick, unless the look at the cluster that ended it failed."""
        ledger, fleet = self._ledger, self._ledger.fleet
        looks = [event for event in inputs.events if isinstance(event, NodesSeen | ObservationFailed)]
        if looks and isinstance(looks[-1], ObservationFailed):
            self._take(looks[-1])
        stale_s = _STALE_READS * ledger.settings.nodes_every_s + 5.0
        if not fleet.blind and inputs.monotonic - self._observed_at > stale_s:
            fleet.blind = f"the node table was not read for {stale_s:g} s"
        fleet.now = self._time.tick(inputs.monotonic, blind=bool(fleet.blind))
        fleet.epoch = inputs.epoch

    def _take(self, event: Event) -> None:
        ledger, fleet = self._ledger, self._ledger.fleet
        if isinstance(event, NodesSeen):
            self._take_nodes(event)
            return
        if isinstance(event, ObservationFailed):
            if not fleet.blind:
                log.warning("observation_failed", tick=ledger.tick, detail=event.detail)
            fleet.blind = event.detail or "the observation failed"
            return
        if isinstance(event, Explained):
            self._inquiry.answered(fleet, event)
            return
        if isinstance(event, ProcessEnded | ProcessGone | HostDied):
            self._take_of_work(event)
        life = fleet.lives.get(event.slice_id)
        if life is None:
            return
        if isinstance(event, EffectFailed):
            self._effect_failed(life, event)
        else:
            fold(life, event, fleet.now)

    def _take_of_work(self, event: ProcessEnded | ProcessGone | HostDied) -> None:
        """Take in how work ended on a host, also when the slice itself is long gone; attempts that are over are too."""
        attempts = self._ledger.attempts
        if isinstance(event, HostDied):
            for attempt in attempts.values():
                if event.slice_id in attempt.spec.members:
                    attempt.died.add(attempt.rank_of(event.slice_id, event.rank))
            return
        known = attempts.get(event.attempt)
        if known is None or event.slice_id not in known.spec.members:
            return
        if isinstance(event, ProcessEnded):
            known.record(event.slice_id, event.rank, event.outcome)
        else:
            known.clear.setdefault(known.rank_of(event.slice_id, event.rank), Clear.SEEN_GONE)

    def _take_nodes(self, event: NodesSeen) -> None:
        """Take in a complete read: only nodes whose row changed can change what is known of a slice."""
        ledger, fleet = self._ledger, self._ledger.fleet
        before, fleet.nodes, fleet.blind = fleet.nodes, event.nodes, ""
        self._observed_at = self._monotonic
        self._nodes_changed = self._nodes_changed or bool(event.changed)
        # In order: what a set goes through first differs from process to process.
        changed = sorted(event.changed)
        ledger.place_map.take(event.nodes, changed, fleet.now)
        fleet.surveyed = True
        for node_id in changed:
            row = event.nodes.get(node_id)
            self._take_node(node_id, row)
            if row is not None and row.alive and node_id not in before:
                fleet.pause = fleet.pause.end()
        self._miss_nodes()

    def _take_node(self, node_id: str, row: Node | None) -> None:
        """Tell all who use a node what the table says of it."""
        ledger = self._ledger
        ledger.unseen.pop(node_id, None)
        for slice_id, rank in ledger.users.get(node_id, ()):
            life = ledger.fleet.lives.get(slice_id)
            if life is not None:
                fold_node(life, rank, node_id, row)

    def _miss_nodes(self) -> None:
        """Take nodes in use that two reads in a row have not shown as gone: of the first it is not known how old it is.

        They joined and were forgotten while the table was not read.
        """
        unseen = self._ledger.unseen
        for node_id, read in list(unseen.items()):
            if read:
                self._take_node(node_id, None)
            else:
                unseen[node_id] = True

    def _effect_failed(self, life: Life, event: EffectFailed) -> None:
        ledger, fleet = self._ledger, self._ledger.fleet
        item = ledger.outbox.failed(event.slice_id, event.effect, fleet.now, event.detail)
        if item is None:
            return
        wait_s = item.due - fleet.now
        detail = f"{event.effect.value} failed ({item.failures}), again in {wait_s:.1f} s: {event.detail}"
        ledger.note(life.record, Reason.EFFECT_FAILED, detail)
