"""Why a slice is not there: what in the cluster stands in its way, by name.

Reads the node table and the table of all groups, which is slow on large clusters; called on the user's thread only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group_table

from sliceform.controller.backend import Finding
from sliceform.controller.labels import matches
from sliceform.controller.ray_backend import private
from sliceform.controller.ray_backend.holding import Holding, Stage
from sliceform.controller.ray_backend.nodes import NODE_ID, POD_TYPE, SLICE_NAME, WORKER_ID
from sliceform.controller.spec import SliceShape, TpuSlice

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """One look at the cluster."""

    #: Living nodes.
    nodes: tuple[Row, ...]
    #: Node id -> (group's name, resources of its bundles there), without the groups of the life in question.
    held: Mapping[str, tuple[tuple[str, frozenset[str]], ...]]
    #: Node id -> what is free there; None if Ray does not tell.
    free: Mapping[str, Mapping[str, float]] | None


def look(own_prefix: str) -> Cluster:
    """Look at the cluster now; groups whose name begins with `own_prefix` are left out."""
    held: dict[str, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for group_id, row in placement_group_table().items():
        if row["state"] == "REMOVED" or row["name"].startswith(own_prefix):
            continue
        name = row["name"] or f"without a name, {group_id}"
        for index, node in row["bundles_to_node_id"].items():
            if node:
                held[node].append((name, frozenset(row["bundles"][index])))
    nodes = tuple(row for row in ray.nodes() if row["Alive"])
    return Cluster(nodes, {node: tuple(rows) for node, rows in held.items()}, private.available_resources())


def explain(
    cluster: Cluster, holding: Holding | None, shape: SliceShape, place: str | None, avoid: frozenset[str]
) -> tuple[Finding, ...]:
    """Say why a life is not ready, most telling first; nothing if all of its agents have answered."""
    if holding is not None and holding.stage is not Stage.HELD:
        return (Finding("waiting", "it is being released"),)
    if holding is not None and holding.assembled is not None:
        return tuple(_agents(holding))
    if holding is not None and holding.refused is not None:
        return (Finding("refused", holding.refused.detail),)
    if isinstance(shape, TpuSlice):
        if holding is not None and holding.reserved is not None:
            place = holding.reserved.place
        return _tpu(cluster, shape, place, avoid)
    return _plain(cluster, shape, avoid)


def _agents(holding: Holding) -> Iterator[Finding]:
    for agent in holding.agents:
        if agent.end is not None:
            yield Finding("host_missing", f"host {agent.rank} is lost: {agent.end.detail}", str(agent.rank))
        elif agent.up is None:
            yield Finding("waiting", f"the agent of host {agent.rank} has not answered yet", str(agent.rank))
    if not holding.agents:
        yield Finding("waiting", "its hosts are placed; its agents are about to start")


def _tpu(cluster: Cluster, shape: TpuSlice, place: str | None, avoid: frozenset[str]) -> tuple[Finding, ...]:
    slices: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in cluster.nodes:
        labels = row["Labels"]
        if labels.get(POD_TYPE) == shape.pod_type and SLICE_NAME in labels:
            slices[labels[SLICE_NAME]][labels.get(WORKER_ID, "")] = row
    if place is not None:
        found = [*_missing(place, shape, slices.get(place, {})), *_held(cluster, shape, place, slices.get(place, {}))]
        return tuple(found) or (Finding("waiting", f"Ray is placing its hosts on {place}"),)
    if not slices:
        return (_no_such_pod_type(cluster, shape),)
    found = []
    for name, hosts in sorted(slices.items()):
        if name in avoid:
            found.append(Finding("avoided", f"slice {name} was lost or keeps failing, and is not used now", name))
        else:
            found += [*_missing(name, shape, hosts), *_held(cluster, shape, name, hosts)]
    return tuple(found) or (Finding("waiting", "Ray is placing its reservation"),)


def _no_such_pod_type(cluster: Cluster, shape: TpuSlice) -> Finding:
    there = sorted({row["Labels"][POD_TYPE] for row in cluster.nodes if POD_TYPE in row["Labels"]})
    text = f"no living node is part of a {shape.pod_type} slice; pod types there are: {', '.join(there) or 'none'}"
    return Finding("no_such_pod_type", text, shape.pod_type)


def _missing(place: str, shape: TpuSlice, hosts: Mapping[str, Row]) -> Iterator[Finding]:
    for worker_id in map(str, range(shape.hosts)):
        if worker_id not in hosts:
            text = f"slice {place} has no living node with worker id {worker_id}"
            yield Finding("host_missing", text, f"{place}/{worker_id}")


def _held(cluster: Cluster, shape: TpuSlice, place: str, hosts: Mapping[str, Row]) -> Iterator[Finding]:
    wanted = {shape.head_resource, *shape.bundle} - {"CPU", "memory"}
    holders: dict[str, set[str]] = defaultdict(set)
    for worker_id, row in sorted(hosts.items()):
        for name, resources in cluster.held.get(row["NodeID"], ()):
            if resources & wanted:
                holders[name].add(worker_id)
    for name, worker_ids in sorted(holders.items()):
        where = ", ".join(sorted(worker_ids))
        yield Finding("chips_held", f"slice {place} (worker {where}) is held by placement group {name}", name)
    if not holders:
        yield from _short(cluster, hosts.values(), shape.bundle)


def _short(cluster: Cluster, rows: Iterable[Row], bundle: Mapping[str, float], hosts: int = 1) -> Iterator[Finding]:
    """Find nodes that could take so many hosts but for something that a group, a task or an actor holds."""
    if cluster.free is None:
        return
    for row in rows:
        node = row["NodeID"]
        free = cluster.free.get(node, {})
        wanted = max(1, min(hosts, _room(row["Resources"], bundle)))
        lacking = [name for name, amount in bundle.items() if _room(free, {name: amount}) < wanted]
        if not lacking:
            continue
        groups = sorted({name for name, resources in cluster.held.get(node, ()) if resources & set(lacking)})
        by = f"placement group {', '.join(groups)}" if groups else "a task, an actor or its own earlier claim"
        text = f"node {node[:8]} ({row['NodeManagerAddress']}) has too little {', '.join(lacking)} free: held by {by}"
        yield Finding("chips_held", text, groups[0] if groups else node)


def _plain(cluster: Cluster, shape: SliceShape, avoid: frozenset[str]) -> tuple[Finding, ...]:
    matching = [row for row in cluster.nodes if matches({**row["Labels"], NODE_ID: row["NodeID"]}, shape.selector)]
    if not matching:
        return (Finding("host_missing", f"no living node has the labels {dict(shape.selector)}", "0"),)
    each = shape.hosts if not shape.exclusive_nodes else 1
    fit = {row["NodeID"]: row for row in matching if _room(row["Resources"], shape.bundle)}
    usable = [row for node, row in fit.items() if node not in avoid]
    free = cluster.free or {}

    def room(resources: Iterable[Mapping[str, float]]) -> int:
        return sum(min(each, _room(has, shape.bundle)) for has in resources)

    found = []
    there = room(row["Resources"] for row in fit.values())
    if there < shape.hosts:
        found.append(Finding("host_missing", _no_room(shape, there), str(there)))
    if room(row["Resources"] for row in usable) < shape.hosts:
        text = "was lost or keeps failing, and is not used now"
        found += [Finding("avoided", f"node {node[:8]} {text}", node) for node in fit if node in avoid]
    if room(free.get(row["NodeID"], {}) for row in usable) < shape.hosts:
        found += _short(cluster, usable, shape.bundle, each)
    return tuple(found) or (Finding("waiting", "Ray is placing its reservation"),)


def _no_room(shape: SliceShape, room: int) -> str:
    offer = ", ".join(f"{amount:g} {name}" for name, amount in shape.bundle.items())
    labels = f" and the labels {dict(shape.selector)}" if shape.selector else ""
    if shape.exclusive_nodes:
        return f"{shape.hosts} living nodes with {offer}{labels} are needed, {room} are there"
    return f"{shape.hosts} hosts with {offer}{labels} are needed, the living nodes can hold {room}"


def _room(resources: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """Return how many times a bundle goes into resources."""
    return min(_units(resources.get(name, 0)) // _units(amount) for name, amount in bundle.items())


def _units(amount: float) -> int:
    """Return an amount in the parts of 1/10,000 in which Ray counts."""
    return round(amount * 10_000)
