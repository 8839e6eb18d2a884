"""Choose the kind of accelerator that a gang of nodes is made of, where the cluster has several."""

from __future__ import annotations

from collections import Counter

from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.ledger import Ledger

#: A slice that has waited so long for nodes of one kind, seconds, tries another: somebody else may have them all.
_TURN_S = 30.0


def choose_kind(ledger: Ledger, life: Life) -> str | None:
    """Return the kind for a reservation that is made now; None if all nodes that fit are of one."""
    counts = ledger.outlook.kinds
    if len(counts) < 2:  # noqa: PLR2004 - nothing to choose from
        return None
    enough = sorted(kind for kind, count in counts.items() if count >= ledger.shape.hosts)
    last = None if life.asked is None else life.asked.accelerator
    if last in enough:
        return enough[(enough.index(last) + _is_over(ledger, life)) % len(enough)]
    room = _room(ledger)
    chosen = max(enough or sorted(counts), key=lambda kind: room[kind])
    room[chosen] -= ledger.shape.hosts
    return chosen


def turns_over(ledger: Ledger) -> list[Life]:
    """Return the slices that have waited long enough for one kind to try another."""
    if len(ledger.outlook.kinds) < 2:  # noqa: PLR2004 - as above
        return []
    return [life for life in ledger.fleet.lives.values() if life.waits_for_reservation and _is_over(ledger, life)]


def _is_over(ledger: Ledger, life: Life) -> bool:
    return ledger.fleet.now - life.asked_at >= _TURN_S


def _room(ledger: Ledger) -> Counter[str]:
    """Count the nodes of every kind that no slice of ours has or waits for; counted once a tick."""
    tick, room = ledger.room
    if tick == ledger.tick:
        return room
    room = Counter(ledger.outlook.kinds)
    for life in ledger.fleet.lives.values():
        node, asked = life.view.nodes[0], life.asked
        kind = None if asked is None else asked.accelerator
        if node is not None:
            kind = ledger.place_map.accelerator(node)
        if kind is not None:
            room[kind] -= ledger.shape.hosts
    ledger.room = (ledger.tick, room)
    return room
