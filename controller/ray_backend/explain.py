"""Find out why a slice is not there: read the node table and all groups, and say what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ray
from ray.util.placement_group import placement_group_table

from sliceform.controller.backend import Finding
from sliceform.controller.observed import Node
from sliceform.controller.ray_backend.nodes import decode_all
from sliceform.controller.spec import SliceShape, TpuSlice

#: Group states in which bundles hold resources.
_HOLDING = {"CREATED", "PREPARED", "RESCHEDULING"}


def explain(own: str, shape: SliceShape, place: str | None, avoid: frozenset[str]) -> tuple[Finding, ...]:
    """Say why the life whose groups' names begin with `own` is not ready; reads the whole group table."""
    rows = ray.nodes()
    nodes = [node for node in decode_all(rows, {}).values() if node.alive]
    resources = {row["NodeID"]: row.get("Resources") or {} for row in rows}
    holders = list(_holders(own))
    if isinstance(shape, TpuSlice):
        found = _tpu(shape, place, avoid, nodes, holders)
    else:
        found = _free(shape, avoid, nodes, resources, holders)
    return tuple(found) or (Finding("waiting", "nothing stands in the way; Ray has not placed it yet"),)


def _holders(own: str) -> Iterable[tuple[str, str, Mapping[str, float]]]:
    """Return (group name, node id, resources) of every bundle that is held by somebody else."""
    for table in placement_group_table().values():
        if table["state"] not in _HOLDING or table["name"].startswith(own):
            continue
        name = table["name"] or f"an unnamed group ({table['placement_group_id'][:8]})"
        for index, node in table["bundles_to_node_id"].items():
            if node:
                bundles = table["bundles"]
                yield name, node, bundles[index] if index in bundles else bundles[str(index)]


def _tpu(
    shape: TpuSlice,
    place: str | None,
    avoid: frozenset[str],
    nodes: list[Node],
    holders: list[tuple[str, str, Mapping[str, float]]],
) -> list[Finding]:
    same = [node for node in nodes if node.pod_type == shape.pod_type]
    if not same:
        there = sorted({node.pod_type for node in nodes if node.pod_type})
        text = f"no node of pod type {shape.pod_type} is in the cluster; there is {', '.join(there) or 'no TPU'}"
        return [Finding("no_such_pod_type", text, shape.pod_type)]
    places = {place} if place is not None else {node.place for node in same if node.place}
    found: list[Finding] = []
    for name in sorted(places):
        hosts = {node.worker_id: node for node in same if node.place == name}
        missing = [rank for rank in range(shape.hosts) if rank not in hosts]
        found += [
            Finding("host_missing", f"worker {rank} of slice {name} is not in the cluster", f"{name}/{rank}")
            for rank in missing
        ]
        if name in avoid:
            found.append(Finding("avoided", f"slice {name} is not used now", name))
        wanted = {shape.head_resource, "TPU"} if place is None else {"TPU"}
        found += [
            Finding("chips_held", f"worker {rank} of slice {name}: {_names(wanted, bundle)} held by {group}", group)
            for rank, node in sorted(hosts.items(), key=lambda item: item[0] or 0)
            for group, where, bundle in holders
            if where == node.id and wanted & bundle.keys()
        ]
    order = {"chips_held": 0, "host_missing": 1, "avoided": 2}
    return sorted(found, key=lambda finding: order[finding.code])


def _names(wanted: set[str], bundle: Mapping[str, float]) -> str:
    return " and ".join(sorted(wanted & bundle.keys()))


def _free(
    shape: SliceShape,
    avoid: frozenset[str],
    nodes: list[Node],
    resources: Mapping[str, Mapping[str, float]],
    holders: list[tuple[str, str, Mapping[str, float]]],
) -> list[Finding]:
    fit = [
        node for node in nodes if all(resources[node.id].get(name, 0) >= need for name, need in shape.bundle.items())
    ]
    need = ", ".join(f"{amount:g} {name}" for name, amount in shape.bundle.items())
    if len(fit) < (shape.hosts if shape.exclusive_nodes else 1):
        text = (
            f"{len(fit)} nodes of the cluster have {need}; a slice needs {shape.hosts if shape.exclusive_nodes else 1}"
        )
        return [Finding("no_such_nodes", text)]
    found = [Finding("avoided", f"node {node.id[:8]} is not used now", node.id) for node in fit if node.id in avoid]
    ids = {node.id for node in fit}
    held: dict[str, None] = {
        group: None for group, where, bundle in holders if where in ids and bundle.keys() & shape.bundle.keys()
    }
    found += [Finding("chips_held", f"nodes with {need} are held in part by {group}", group) for group in held]
    return found
