"""What must always hold of the records of a fleet.

Violations are given as sentences and nothing is raised, so that a test can show them all and a
running controller can log them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sliceform.states.hosts import HostState
from sliceform.states.slices import SliceState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sliceform.states.records import SliceRecord

_ANSWERED = frozenset({HostState.READY, HostState.RUNNING})
_LOST = frozenset({HostState.PREEMPTED, HostState.DRAINING})
_LIVE_HOST = frozenset(HostState) - _LOST
_ANY = frozenset({*HostState, None})
#: States that hosts may be in while their slice is in this one; in all others any.
_AGREEING: Mapping[SliceState | None, frozenset[HostState | None]] = {
    SliceState.PLACED: _ANY - _LOST,
    SliceState.READY: _ANSWERED,
    SliceState.RUNNING: _ANSWERED,
    SliceState.PREEMPTED: _ANY - _LIVE_HOST,
}


def check_records(
    slices: Iterable[SliceRecord],
    *,
    exclusive_nodes: bool = True,
) -> tuple[str, ...]:
    """Name each contradiction within the records of one fleet.

    `exclusive_nodes` says that a node serves one host only, which holds on TPU but not for slices
    of CPU hosts that are packed.
    """
    records = tuple(slices)
    found: list[str] = []
    for record in records:
        found += _identity(record)
        found += _agreement(record)
    found.extend(f"slice id {key!r} is used {count} times" for key, count in _repeated(r.id for r in records))
    live = [record for record in records if record.live]
    found.extend(
        f"place {place!r} is shared by {_names(r.id for r in live if r.place == place)}"
        for place, _ in _repeated(r.place for r in live if r.place is not None)
    )
    if exclusive_nodes:
        hosts = [host for record in live for host in record.hosts if host.node_id is not None]
        found.extend(
            f"node {node!r} is shared by {_names(h.id for h in hosts if h.node_id == node)}"
            for node, _ in _repeated(h.node_id for h in hosts if h.node_id is not None)
        )
    return tuple(found)


def _identity(record: SliceRecord) -> list[str]:
    """Name ids and ranks of hosts that do not belong to their slice."""
    name, found = record.id, []
    for rank, host in enumerate(record.hosts):
        if host.rank != rank:
            found.append(f"host {host.id} has rank {host.rank} at position {rank} of {name}")
        if host.slice_id != name:
            found.append(f"host {host.id} of {name} says that it is of {host.slice_id}")
        if host.id != f"{name}/{host.rank}":
            found.append(f"host {host.id} of {name} should be called {name}/{host.rank}")
    return found


def _agreement(record: SliceRecord) -> list[str]:
    """Name hosts whose state contradicts that of their slice."""
    agreeing = _AGREEING.get(record.state)
    if agreeing is None:
        return []
    wrong = [host for host in record.hosts if host.state not in agreeing]
    return [f"slice {record.id} is {record.state}, but host {host.id} is {_name(host.state)}" for host in wrong]


def _repeated(values: Iterable[str]) -> list[tuple[str, int]]:
    """Give the values that occur more than once, with their counts."""
    listed = list(values)
    if len(set(listed)) == len(listed):
        return []
    return [(value, count) for value, count in Counter(listed).items() if count > 1]


def _names(ids: Iterable[str]) -> str:
    """Write ids one after another."""
    return ", ".join(ids)


def _name(state: str | None) -> str:
    """Write a state, or that there is none."""
    return "[*]" if state is None else str(state)
