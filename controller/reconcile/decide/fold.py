"""Fold what a backend reported into the views of the lives that it is about.

Idempotent: the same event twice changes nothing the second time. Everything that changes a view raises its version, so
that `sync` looks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sliceform.controller.model.events import (
    PROCESS_LOSSES,
    AgentFailed,
    AgentUp,
    Assembled,
    Explained,
    HostLost,
    HostNoticed,
    Node,
    NoticeWithdrawn,
    Notified,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
    Refused,
    Released,
    Reserved,
    SliceEvent,
)
from sliceform.controller.model.finding import same
from sliceform.controller.reconcile.decide.life import HostView, Life, Loss
from sliceform.states.reasons import Reason

#: The source of notices that come with the node table.
DRAINING = "ray-drain"


def fold(life: Life, event: SliceEvent, now: float) -> bool:
    """Take one event in; `now` is loop time. Return whether it changed what is known."""
    handler = _HANDLERS.get(type(event))
    if handler is None or not handler(life, event):
        return False
    if isinstance(event, AgentUp):
        life.heard[event.rank] = life.raylet_heard[event.rank] = now
    life.view.version += 1
    return True


def fold_node(life: Life, rank: int | None, node_id: str, row: Node | None) -> bool:
    """Take in the present row of a node that this life uses; None means that the table no longer has it.

    `rank=None` is the node of the head group.
    """
    if row is None or not row.alive:
        reason = Reason.NODE_GONE if row is None else Reason.NODE_DIED
        words = "no longer in the node table" if row is None else row.death or "dead in the node table"
        loss = Loss(reason, f"node {node_id[:8]} {words}")
        changed = _lose_all(life, loss) if rank is None else _lose_node(life.view.hosts[rank], loss)
    elif rank is not None:
        deadline = row.drain_epoch_s
        if deadline is None:
            changed = _withdraw(life.view.hosts[rank], DRAINING)
        else:
            changed = _notice(life.view.hosts[rank], DRAINING, deadline or None)
    else:
        changed = False
    if changed:
        life.view.version += 1
    return changed


def _lose_all(life: Life, loss: Loss) -> bool:
    if life.view.lost is not None:
        return False
    life.view.lost = loss
    return True


def _lose_node(host: HostView, loss: Loss) -> bool:
    """The node's death says more than the death of a process on it: it replaces such a loss."""
    if host.lost is not None and host.lost.reason not in PROCESS_LOSSES:
        return False
    host.lost = loss
    return True


def _notice(host: HostView, source: str, deadline_epoch_s: float | None) -> bool:
    if host.notices is not None and source in host.notices and host.notices[source] == deadline_epoch_s:
        return False
    host.notices = {**(host.notices or {}), source: deadline_epoch_s}
    return True


def _withdraw(host: HostView, source: str) -> bool:
    if not host.notices or source not in host.notices:
        return False
    host.notices = {name: deadline for name, deadline in host.notices.items() if name != source} or None
    return True


def _reserved(life: Life, event: Reserved) -> bool:
    view = life.view
    if view.reserved:
        if event.place != view.place or (event.place is None and event.nodes != view.nodes):
            return _lose_all(life, Loss(Reason.GROUP_LOST, f"reservation moved to {event.place or 'other nodes'}"))
        return False
    view.reserved = True
    view.place = event.place
    if event.place is not None:
        view.head_node = event.nodes[0]
    else:
        _freeze(life, event.nodes)
    return True


def _freeze(life: Life, nodes: tuple[str, ...]) -> bool:
    """Nodes freeze once; a bundle on another node afterwards is a loss, never a recovery."""
    changed = False
    for host, node in zip(life.view.hosts, nodes, strict=True):
        if host.node_id is None:
            host.node_id = node
            changed = True
        elif host.node_id != node and host.lost is None:
            where = f"moved to node {node[:8]}" if node else "is no longer placed"
            host.lost = Loss(Reason.GROUP_LOST, f"its bundle {where}")
            changed = True
    return changed


def _agent_up(life: Life, event: AgentUp) -> bool:
    host = life.view.hosts[event.rank]
    if host.agent_node == event.node_id and host.devices == event.devices:
        return False
    host.agent_node, host.devices, host.address = event.node_id, event.devices, event.address
    host.agent_pid = event.pid
    return True


def _agent_failed(life: Life, event: AgentFailed) -> bool:
    host = life.view.hosts[event.rank]
    if host.failed is not None or host.agent_node is not None:
        return False
    host.failed = event.detail
    return True


def _host_lost(life: Life, event: HostLost) -> bool:
    loss = Loss(event.reason, event.detail)
    if event.rank is None:
        return _lose_all(life, loss)
    host = life.view.hosts[event.rank]
    if host.lost is None:
        host.lost = loss
        return True
    return loss.reason in {Reason.NODE_DIED, Reason.NODE_GONE} and _lose_node(host, loss)


def _refused(life: Life, event: Refused) -> bool:
    if life.view.refused is not None or life.view.reserved:
        return False
    life.view.refused = event.detail
    return True


def _started(life: Life, event: ProcessStarted) -> bool:
    host = life.view.hosts[event.rank]
    if event.attempt in {host.alive, host.gone}:
        return False
    host.alive = event.attempt
    return True


def _ended(life: Life, event: ProcessEnded) -> bool:
    key = (event.attempt, event.rank)
    if event.attempt != life.record.attempt or key in life.view.outcomes:
        return False
    life.view.outcomes[key] = event.outcome
    return True


def _gone(life: Life, event: ProcessGone) -> bool:
    host = life.view.hosts[event.rank]
    if event.attempt != life.record.attempt or host.gone == event.attempt:
        return False
    host.gone = event.attempt
    return True


def _explained(life: Life, event: Explained) -> bool:
    if same(life.view.held_up, event.findings):
        return False
    life.view.held_up = event.findings
    return True


def _released(life: Life) -> bool:
    if life.view.released:
        return False
    life.view.released = True
    return True


def _told(life: Life, event: Notified) -> bool:
    told = (event.attempt, event.deadline_epoch_s)
    changed = life.view.told != told
    life.view.told = told
    return changed


_HANDLERS: dict[type, Callable[[Life, Any], bool]] = {
    Reserved: _reserved,
    Refused: _refused,
    Assembled: lambda life, event: _freeze(life, event.nodes),
    AgentUp: _agent_up,
    AgentFailed: _agent_failed,
    HostLost: _host_lost,
    HostNoticed: lambda life, event: _notice(life.view.hosts[event.rank], event.source, event.deadline_epoch_s),
    NoticeWithdrawn: lambda life, event: _withdraw(life.view.hosts[event.rank], event.source),
    ProcessStarted: _started,
    ProcessEnded: _ended,
    ProcessGone: _gone,
    Notified: _told,
    Released: lambda life, _: _released(life),
    Explained: _explained,
}
