"""Placement groups as Ray offers them: ask for them, see where they are, see them removed. Calls wait on the GCS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
import structlog
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from sliceform.controller.model.effects import Reserve
from sliceform.controller.model.events import Node
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.ray_backend.nodes import ACCELERATOR, SLICE_NAME, WORKER_ID
from sliceform.controller.reconcile.decide.places import NODE_ID

log = structlog.get_logger(__name__)

Selector = dict[str, str]


def head_group(name: str, shape: TpuSlice, request: Reserve, *, demand: bool) -> PlacementGroup:
    """Ask for a TPU slice, by the resource that only worker 0 of one has.

    A label that says the same once more keeps it from being demand: Ray's autoscaler compares selectors with the labels
    in its configuration, which cannot name those of hosts that are not there yet, and starts none. A selector of the
    user's is asked for.
    """
    selector = {**shape.selector, **({} if demand else {WORKER_ID: "0"})}
    selector = _excluding(_excluding(selector, SLICE_NAME, request.avoid), NODE_ID, request.avoid_nodes)
    return _create(name, [{shape.head_resource: 1}], "PACK", [selector] if selector else None)


def new_hosts_group(name: str, shape: TpuSlice, hosts: int) -> PlacementGroup:
    """Ask an autoscaler for hosts of new TPU slices: none that is there has such a worker id, so none is taken.

    An autoscaler expects the head resource of every host of such a slice. Without `STRICT_SPREAD` it comes to this
    group after those of slices that are on their way.
    """
    bundle = {**shape.bundle, shape.head_resource: 1}
    selector = {**shape.selector, WORKER_ID: f"!in({','.join(map(str, range(shape.hosts)))})"}
    return _create(name, [bundle] * hosts, "PACK", [selector] * hosts)


def coming_slice_group(name: str, shape: TpuSlice, kept_from: Selector) -> PlacementGroup:
    """Have an autoscaler count hosts that are on their way to a TPU slice, joined or not, for one slice."""
    selector = {**shape.selector, **kept_from}
    selectors = [selector] * shape.hosts if selector else None
    return _create(name, [shape.bundle] * shape.hosts, "STRICT_SPREAD", selectors)


def holding_group(name: str, node: Node) -> PlacementGroup | None:
    """Make a node count as used, by next to nothing of the resource that Ray gives to each for its address."""
    address = next((resource for resource in node.resources if resource.startswith("node:")), None)
    return None if address is None else _create(name, [{address: 0.001}], "PACK", [{NODE_ID: node.id}])


def pinned_group(name: str, shape: SliceShape, place: str, units: int) -> PlacementGroup:
    """Ask for the hosts of one TPU slice, with all of their chips: bundle i on worker i."""
    selectors = [{**shape.selector, SLICE_NAME: place, WORKER_ID: str(rank)} for rank in range(shape.hosts)]
    return _create(name, [in_units(shape, shape.bundle, units)] * shape.hosts, "PACK", selectors)


def free_group(name: str, request: Reserve) -> PlacementGroup:
    """Ask for the hosts of a GPU or CPU slice, wherever there is room but on the nodes to avoid."""
    shape = request.shape
    selector = _excluding(dict(shape.selector), NODE_ID, request.avoid)
    if request.accelerator is not None:
        selector[ACCELERATOR] = request.accelerator
    selectors = [selector] * shape.hosts if selector else None
    return _create(name, [shape.bundle] * shape.hosts, shape.strategy, selectors)


def in_units(shape: SliceShape, resources: Mapping[str, float], units: int) -> dict[str, float]:
    """Return resources with accelerators counted as Ray counts them where each is so many units."""
    name = shape.devices_per_host.name
    return {resource: amount * (units if resource == name else 1) for resource, amount in resources.items()}


def _excluding(selector: Selector, label: str, values: frozenset[str]) -> Selector:
    """Keep away from values of a label; an empty exclusion would not be valid, and one label has one condition."""
    if values and label not in selector:
        selector[label] = f"!in({','.join(sorted(values))})"
    return selector


def _create(
    name: str, bundles: list[dict[str, float]], strategy: str, selectors: list[Selector] | None
) -> PlacementGroup:
    try:
        return placement_group(bundles, strategy=strategy, name=name, bundle_label_selector=selectors)
    except ray.exceptions.RaySystemError as error:
        if "already exists" not in str(error):
            raise
        # An earlier call for the same life was carried out though its answer was lost.
        log.info("group_adopted", group=name, cause=str(error))
        return get_placement_group(name)


def row_of(group: PlacementGroup) -> Mapping[str, Any]:
    """Read the group's own row; empty if Ray no longer knows it."""
    row: Mapping[str, Any] = placement_group_table(group)
    return row


def nodes_of(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return node ids by bundle index; None unless the whole group is placed."""
    if row.get("state") != "CREATED":
        return None
    by_bundle = {int(index): node for index, node in row["bundles_to_node_id"].items()}
    nodes = tuple(by_bundle[index] for index in sorted(by_bundle))
    return nodes if all(nodes) else None


def is_removed(row: Mapping[str, Any]) -> bool:
    """Whether a group's row says that it is removed; so does a row that is gone."""
    return not row or row.get("state") == "REMOVED"


def remove(group: PlacementGroup) -> None:
    """Ask Ray to remove a group, with all that runs in it; idempotent."""
    remove_placement_group(group)
