"""The placement groups of one slice: make them, learn where they are, and see them removed.

Everything here waits on Ray's GCS, so it runs on the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from sliceform.controller.ray_backend.nodes import NODE_ID, POD_TYPE, SLICE_NAME, WORKER_ID
from sliceform.controller.spec import SliceShape, TpuSlice

Selector = dict[str, str]


def head_group(shape: TpuSlice, avoid: frozenset[str], name: str) -> PlacementGroup:
    """Ask for a TPU slice: the resource and labels that only worker 0 of such a slice has."""
    selector: Selector = {WORKER_ID: "0", POD_TYPE: shape.pod_type}
    _exclude(selector, SLICE_NAME, avoid)
    return placement_group([{shape.head_resource: 1}], name=name, bundle_label_selector=[selector])


def pinned_group(shape: SliceShape, place: str, name: str) -> PlacementGroup:
    """Ask for the hosts of one TPU slice: bundle i on worker i, with the chips."""
    selectors = [{SLICE_NAME: place, WORKER_ID: str(rank)} for rank in range(shape.hosts)]
    return placement_group([shape.bundle] * shape.hosts, name=name, bundle_label_selector=selectors)


def free_group(shape: SliceShape, avoid: frozenset[str], name: str) -> PlacementGroup:
    """Ask for the hosts of a GPU or CPU slice, wherever there is room."""
    selector: Selector = dict(shape.selector)
    _exclude(selector, NODE_ID, avoid)
    selectors = [selector] * shape.hosts if selector else None
    return placement_group(
        [shape.bundle] * shape.hosts, strategy=shape.strategy, name=name, bundle_label_selector=selectors
    )


def _exclude(selector: Selector, label: str, values: frozenset[str]) -> None:
    """Keep away from values of a label; an empty exclusion would be invalid."""
    if values:
        selector[label] = f"!in({','.join(sorted(values))})"


def when_placed(group: PlacementGroup, then: Callable[[], None]) -> None:
    """Call `then` on Ray's thread when the group is placed; it must not call Ray."""

    def ready(future: Any) -> None:
        if future.exception() is None:
            then()

    group.ready().future().add_done_callback(ready)


def row(group: PlacementGroup) -> Mapping[str, Any]:
    """Read the group's own row."""
    return placement_group_table(group)  # type: ignore[no-any-return]


def nodes_of(table: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return node ids by bundle index; None while the group is not placed as a whole."""
    if table.get("state") != "CREATED":
        return None
    by_index = {int(index): node for index, node in table["bundles_to_node_id"].items()}
    nodes = tuple(by_index.get(index, "") for index in range(len(by_index)))
    return nodes if all(nodes) else None


def remove(group: PlacementGroup) -> None:
    """Ask Ray to remove a group, with all that runs in it."""
    remove_placement_group(group)


def removed(group: PlacementGroup) -> bool:
    """Whether the group is seen removed."""
    return row(group).get("state") in {None, "REMOVED"}
