"""Why a slice is not there: the simulated cluster's findings, in the codes of the Ray backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sliceform.controller.model.backend import Finding
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.reconcile.decide.places import Place, survey
from sliceform.controller.testing.sim.cluster import SimCluster, SimPlace
from sliceform.controller.testing.sim.lives import AgentState, SimLife


def explain(
    cluster: SimCluster,
    life: SimLife | None,
    shape: SliceShape,
    place: str | None,
    avoid: Mapping[str, str],
) -> tuple[Finding, ...]:
    """Say why this life is not ready, as far as the cluster knows."""
    if life is not None and life.assembled is not None:
        return tuple(_agents(life))
    if life is not None and life.reserved is None and any(g.placed for g in life.groups):
        return (Finding("waiting", "the cluster is placing the reservation"),)
    claimed = life.place if life is not None else cluster.places.get(place or "")
    if claimed is not None:
        known = survey(cluster.truth(), shape).get(claimed.name)
        found = [*(known.findings() if known is not None else ()), *_held(claimed)]
        return tuple(found) or (Finding("waiting", f"{claimed.name} is about to be assembled"),)
    places = survey(cluster.truth(), shape)
    found = [finding for place in places.values() for finding in _blocked(cluster, place, avoid)]
    if isinstance(shape, TpuSlice) and not places:
        return (Finding("no_such_pod_type", f"no slice of pod type {shape.pod_type} in the cluster", shape.pod_type),)
    return tuple(found) or (Finding("waiting", "the cluster has not placed the reservation yet"),)


def _blocked(cluster: SimCluster, place: Place, avoid: Mapping[str, str]) -> Iterator[Finding]:
    if place.name in avoid:
        yield Finding("avoided", f"{place.name} is not used now: {avoid[place.name]}", place.name)
    yield from place.findings()
    machine = cluster.nodes[place.nodes[0]]
    yield from _held(machine.place)
    for node in machine.place.heads:
        if node.head is not None:
            text = f"the chips of {place.name} are held by placement group {node.head}"
            yield Finding("chips_held", text, node.head)


def _held(place: SimPlace) -> Iterator[Finding]:
    if place.held_by is not None:
        text = f"the chips of {place.name} are held by placement group {place.held_by}"
        yield Finding("chips_held", text, place.held_by)


def _agents(life: SimLife) -> Iterator[Finding]:
    for rank, agent in enumerate(life.agents):
        if agent.state is AgentState.STARTING:
            yield Finding("waiting", f"the agent of host {rank} has not answered", str(rank))
        elif not agent.answers:
            where = f"{agent.node.place.name}/{agent.node.worker_id}"
            yield Finding("host_missing", f"host {rank} is lost", where)
