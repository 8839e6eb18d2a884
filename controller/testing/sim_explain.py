"""Why a slice is not there: the simulated cluster's findings, in the codes of the Ray backend."""

from __future__ import annotations

from collections.abc import Iterator

from sliceform.controller.backend import Finding
from sliceform.controller.spec import SliceShape, TpuSlice
from sliceform.controller.testing.sim_cluster import SimCluster, SimPlace
from sliceform.controller.testing.sim_lives import AgentState, SimLife


def explain(
    cluster: SimCluster,
    life: SimLife | None,
    shape: SliceShape,
    place: str | None,
    avoid: frozenset[str],
) -> tuple[Finding, ...]:
    """Say why this life is not ready, as far as the cluster knows."""
    if life is not None and life.assembled is not None:
        return tuple(_agents(life))
    if life is not None and life.reserved is None and any(g.placed for g in life.groups):
        return (Finding("waiting", "the cluster is placing the reservation"),)
    claimed = life.place if life is not None else cluster.places.get(place or "")
    if claimed is not None:
        found = [*_missing(claimed), *_held(claimed)]
        return tuple(found) or (Finding("waiting", f"{claimed.name} is about to be assembled"),)
    if isinstance(shape, TpuSlice):
        places = [place for place in cluster.places.values() if place.pod_type == shape.pod_type]
        if not places:
            text = f"no slice of pod type {shape.pod_type} in the cluster"
            return (Finding("no_such_pod_type", text, shape.pod_type),)
    else:
        places = [p for p in cluster.places.values() if p.shape.kind == shape.kind]
    found = [finding for place in places for finding in _blocked(place, avoid)]
    return tuple(found) or (Finding("waiting", "the cluster has not placed the reservation yet"),)


def _blocked(place: SimPlace, avoid: frozenset[str]) -> Iterator[Finding]:
    avoided = [place.name] if place.name in avoid else [n.id for n in place.nodes if n.id in avoid]
    for subject in avoided:
        yield Finding("avoided", f"{subject} was lost or keeps failing and is not used now", subject)
    yield from _missing(place)
    yield from _held(place)
    if place.head is not None:
        text = f"the chips of {place.name} are held by placement group {place.head}"
        yield Finding("chips_held", text, place.head)


def _held(place: SimPlace) -> Iterator[Finding]:
    if place.held_by is not None:
        text = f"the chips of {place.name} are held by placement group {place.held_by}"
        yield Finding("chips_held", text, place.held_by)


def _missing(place: SimPlace) -> Iterator[Finding]:
    for node in place.nodes:
        if not node.placeable:
            text = f"host {node.worker_id} of {place.name} is missing"
            yield Finding("host_missing", text, f"{place.name}/{node.worker_id}")


def _agents(life: SimLife) -> Iterator[Finding]:
    for rank, agent in enumerate(life.agents):
        if agent.state is AgentState.STARTING:
            yield Finding("waiting", f"the agent of host {rank} has not answered", str(rank))
        elif not agent.answers:
            where = f"{agent.node.place.name}/{agent.node.worker_id}"
            yield Finding("host_missing", f"host {rank} is lost", where)
