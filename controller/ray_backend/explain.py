"""Why a slice is not there: what in the cluster stands in its way, by name.

Reads the node table and the table of all groups, which is slow on large clusters; called on the user's thread only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import ray
from ray.util.placement_group import placement_group_table

from sliceform.controller.model.backend import Finding
from sliceform.controller.model.events import Node
from sliceform.controller.model.selectors import matches
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.ray_backend import private
from sliceform.controller.ray_backend.demand import MOST_AT_ONCE, Standing
from sliceform.controller.ray_backend.lives import Holding, Stage
from sliceform.controller.ray_backend.nodes import decode_all
from sliceform.controller.reconcile.decide.places import NODE_ID, Place, PlaceState, survey

#: An autoscaler makes a step every five seconds: from when it counts as silent, seconds.
_SILENT_S = 30.0
#: Of nodes that do not fit, so many are told.
_TOLD = 4


@dataclass(frozen=True, slots=True)
class Cluster:
    """One look at the cluster."""

    #: Living nodes.
    nodes: Mapping[str, Node]
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
    nodes = decode_all(ray.nodes(), private.draining_nodes())
    living = {node: row for node, row in nodes.items() if row.alive}
    return Cluster(living, {node: tuple(rows) for node, rows in held.items()}, private.available_resources())


def explain(
    cluster: Cluster, holding: Holding | None, shape: SliceShape, place: str | None, avoid: Mapping[str, str]
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


def explain_demand(standing: Standing, shape: TpuSlice) -> Iterator[Finding]:
    """Say how it stands with the slices that KubeRay's autoscaler was asked for."""
    hosts, head = shape.hosts, shape.head_resource
    if standing.silent_s > _SILENT_S:
        yield Finding(
            "autoscaler_silent",
            f"KubeRay's autoscaler has told nothing new for {standing.silent_s:.0f} s: see whether its container runs "
            "and reaches the Kubernetes API server",
        )
    if standing.refused:
        offer = ", ".join(f"{amount:g} {name}" for name, amount in shape.bundle.items())
        yield Finding(
            "autoscaler_refuses",
            f"KubeRay's autoscaler has no worker group that may grow by {hosts} hosts with {offer} and {head}: see "
            "maxReplicas, and what the pods of the group offer",
            head,
        )
    if standing.stray and hosts > MOST_AT_ONCE:
        yield Finding(
            "autoscaler_rounds",
            f"KubeRay's autoscaler asked for {standing.stray} hosts, which it rounded down to no slice of {hosts}: it "
            f"asks for {MOST_AT_ONCE} at once if its variable AUTOSCALER_MAX_CONCURRENT_LAUNCHES does not say more: "
            f"set that to {hosts} or more",
            str(standing.stray),
        )
    if standing.coming:
        yield Finding("waiting", f"{standing.coming} slices are on their way: their pods have not all joined", "coming")
    elif standing.healing:
        text = "a slice that was there or on its way is gone: KubeRay's operator may make it anew"
        yield Finding("waiting", text, "gone")
    elif standing.new:
        yield Finding("waiting", f"KubeRay's autoscaler has been asked for {standing.new} slices", "asked")


def _agents(holding: Holding) -> Iterator[Finding]:
    for agent in holding.agents:
        if agent.end is not None:
            yield Finding("host_missing", f"host {agent.rank} is lost: {agent.end.detail}", str(agent.rank))
        elif agent.up is None:
            yield Finding("waiting", f"the agent of host {agent.rank} has not answered yet", str(agent.rank))
    if not holding.agents:
        yield Finding("waiting", "its hosts are placed; its agents are about to start")


def _tpu(cluster: Cluster, shape: TpuSlice, claimed: str | None, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
    places = survey(cluster.nodes, shape)
    if claimed is not None:
        place = places.get(claimed) or Place(claimed, PlaceState.INCOMPLETE, missing=tuple(range(shape.hosts)))
        found = [*place.findings(), *_held(cluster, shape, place)]
        return tuple(found) or (Finding("waiting", f"Ray is placing its hosts on {claimed}"),)
    if not places:
        return (_no_such_pod_type(cluster, shape),)
    found = []
    for name, place in places.items():
        if name in avoid:
            found.append(Finding("avoided", f"slice {name} is not used now: {avoid[name]}", name))
        else:
            found += [*place.findings(), *_held(cluster, shape, place)]
    return tuple(found) or (Finding("waiting", "Ray is placing its reservation"),)


def _no_such_pod_type(cluster: Cluster, shape: TpuSlice) -> Finding:
    there = ", ".join(sorted({node.pod_type for node in cluster.nodes.values() if node.pod_type})) or "none"
    labels = f" and has the labels {dict(shape.selector)}" if shape.selector else ""
    text = f"no living node is part of a {shape.pod_type} slice{labels}; pod types there are: {there}"
    return Finding("no_such_pod_type", text, shape.pod_type)


def _held(cluster: Cluster, shape: TpuSlice, place: Place) -> Iterator[Finding]:
    wanted = {shape.head_resource, *shape.bundle} - {"CPU", "memory"}
    holders: dict[str, set[str]] = defaultdict(set)
    for node in place.nodes:
        for group, resources in cluster.held.get(node, ()):
            if resources & wanted:
                holders[group].add(str(cluster.nodes[node].worker_id))
    for group, worker_ids in sorted(holders.items()):
        where = ", ".join(sorted(worker_ids))
        yield Finding("chips_held", f"{place.title} (worker {where}) is held by placement group {group}", group)
    if not holders:
        yield from _short(cluster, place.nodes, shape.bundle)


def _short(cluster: Cluster, nodes: Iterable[str], bundle: Mapping[str, float], hosts: int = 1) -> Iterator[Finding]:
    """Find nodes that could take so many hosts but for something that a group, a task or an actor holds."""
    if cluster.free is None:
        return
    for node in nodes:
        row, free = cluster.nodes[node], cluster.free.get(node, {})
        wanted = min(hosts, _room(row.resources, bundle))
        lacking = [name for name, amount in bundle.items() if _room(free, {name: amount}) < wanted]
        if not lacking:
            continue
        groups = sorted({name for name, resources in cluster.held.get(node, ()) if resources & set(lacking)})
        by = f"placement group {', '.join(groups)}" if groups else "a task, an actor or its own earlier claim"
        text = f"node {node[:8]} ({row.address}) has too little {', '.join(lacking)} free: held by {by}"
        yield Finding("chips_held", text, groups[0] if groups else node)


def _plain(cluster: Cluster, shape: SliceShape, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
    places = survey(cluster.nodes, shape)
    labelled = [row for row in cluster.nodes.values() if matches({**row.labels, NODE_ID: row.id}, shape.selector)]
    if not labelled:
        return (Finding("host_missing", f"no living node has the labels {dict(shape.selector)}", "0"),)
    each = shape.hosts if not shape.exclusive_nodes else 1
    fit = {name: cluster.nodes[name] for name, place in places.items() if place.whole}
    usable = {name: row for name, row in fit.items() if name not in avoid}
    free = cluster.free or {}

    def room(resources: Iterable[Mapping[str, float]]) -> int:
        return sum(min(each, _room(has, shape.bundle)) for has in resources)

    found = []
    there = room(row.resources for row in fit.values())
    if there < shape.hosts:
        found.append(Finding("host_missing", _no_room(shape, there), str(there)))
        unfit = [finding for place in places.values() for finding in place.findings()]
        found += unfit[:_TOLD]
        if len(unfit) > _TOLD:
            found.append(Finding("place_unfit", f"and {len(unfit) - _TOLD} nodes more"))
    if room(row.resources for row in usable.values()) < shape.hosts:
        found += [
            Finding("avoided", f"node {node[:8]} is not used now: {avoid[node]}", node) for node in fit if node in avoid
        ]
    if room(free.get(name, {}) for name in usable) < shape.hosts:
        found += _short(cluster, usable, shape.bundle, each)
    kinds = sorted({row.accelerator for row in usable.values() if row.accelerator})
    if not found and len(kinds) > 1:
        found.append(Finding("waiting", f"a slice has one kind of accelerator; there are {', '.join(kinds)}"))
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
