"""What must always hold: of a history, and of the records of a fleet.

Both checks give the violations as sentences and raise nothing, so that a test can show them all
and a running controller can log them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sliceform.states.hosts import HOST_TABLE, HostState
from sliceform.states.slices import SLICE_TABLE, SliceState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sliceform.states.history.changes import Change
    from sliceform.states.records import SliceRecord

#: Where each legal (source, trigger) leads, by kind of record; in plain strings, as in a history.
_EDGES: dict[str, dict[tuple[str | None, str], str | None]] = {
    SLICE_TABLE.name: {(row.source, row.trigger): row.dest for row in SLICE_TABLE.rows},
    HOST_TABLE.name: {(row.source, row.trigger): row.dest for row in HOST_TABLE.rows},
}

_ANSWERED = frozenset({HostState.READY, HostState.RUNNING})
_LOST = frozenset({HostState.PREEMPTED, HostState.DRAINING})
_LIVE_HOST = frozenset(HostState) - _LOST


def replay(changes: Iterable[Change], base: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Follow every life from its entry and name each change that does not fit.

    `base` gives the states of the records that lived before the first change, for a history whose
    beginning was dropped (see `History.window`). Notes fit anywhere, and runs are not followed.
    """
    return tuple(_replay(changes, dict(base or {})))


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
        found.extend(_identity(record))
        found.extend(_agreement(record))
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


def _replay(changes: Iterable[Change], states: dict[str, str]) -> Iterator[str]:
    """Follow the changes; after a misfit, go on from where the change says it led."""
    left: set[str] = set()
    last_seq = 0
    for change in changes:
        if change.seq <= last_seq:
            yield f"change {change.seq} of {change.key} comes after change {last_seq}"
        last_seq = change.seq
        if change.is_note or change.kind == "run":
            continue
        where = f"change {change.seq} of {change.key}"
        edges = _EDGES.get(change.kind)
        if edges is None:
            yield f"{where} is of an unknown kind: {change.kind}"
            continue
        state = states.get(change.key)
        if change.key in left:
            yield f"{where} follows the end of its life"
        if change.source != state:
            yield f"{where} starts from {_name(change.source)}, but it was in {_name(state)}"
        edge = (change.source, change.trigger or "")
        if edge not in edges:
            yield f"{where} is not legal: {change.trigger} from {_name(change.source)}"
        elif edges[edge] != change.dest:
            yield f"{where} leads to {_name(change.dest)}, but should to {_name(edges[edge])}"
        if change.dest is None:
            states.pop(change.key, None)
            left.add(change.key)
        else:
            states[change.key] = change.dest


def _identity(record: SliceRecord) -> Iterator[str]:
    """Name ids and ranks of hosts that do not belong to their slice."""
    for rank, host in enumerate(record.hosts):
        if host.rank != rank:
            yield f"host {host.id} has rank {host.rank} at position {rank} of {record.id}"
        if host.slice_id != record.id:
            yield f"host {host.id} of {record.id} says that it is of {host.slice_id}"
        if host.id != f"{record.id}/{host.rank}":
            yield f"host {host.id} of {record.id} should be called {record.id}/{host.rank}"


def _agreement(record: SliceRecord) -> Iterator[str]:
    """Name hosts whose state contradicts that of their slice."""
    if record.state in (SliceState.READY, SliceState.RUNNING):
        wrong = [host for host in record.hosts if host.state not in _ANSWERED]
    elif record.state is SliceState.PLACED:
        wrong = [host for host in record.hosts if host.state in _LOST]
    elif record.state is SliceState.PREEMPTED:
        wrong = [host for host in record.hosts if host.state in _LIVE_HOST]
    else:
        return
    for host in wrong:
        yield f"slice {record.id} is {record.state}, but host {host.id} is {_name(host.state)}"


def _repeated(values: Iterable[str]) -> list[tuple[str, int]]:
    """Give the values that occur more than once, with their counts."""
    return [(value, count) for value, count in Counter(values).items() if count > 1]


def _names(ids: Iterable[str]) -> str:
    """Write ids one after another."""
    return ", ".join(ids)


def _name(state: str | None) -> str:
    """Write a state, or that there is none."""
    return "[*]" if state is None else str(state)
