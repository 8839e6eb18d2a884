"""What the node table says of a place: whole, or what it lacks to carry a slice of the fleet's shape.

A place is a TPU slice, by its name; for GPU and CPU it is a node. One rule for hardware: only what the table says is
compared, and what differs is not used. A host has to offer all that the shape asks for; TPU chips are never shared, so
that its TPU resource has to be the chips of the pod type, or a whole multiple of them (Ray counts several units a chip
where `RAY_TPU_RESOURCE_PER_CHIP` is set), which is then reserved whole. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sliceform.controller.model.events import Node
from sliceform.controller.model.finding import Finding
from sliceform.controller.model.selectors import is_value, matches
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.model.topology import same_topology

#: Label that Ray gives to every node, with its id.
NODE_ID = "ray.io/node-id"
#: Ray counts resources in parts of 1/10,000.
_PARTS = 10_000
_GIB = 2**30
#: Of what is wrong with a place, so much is told.
_TOLD = 4


class PlaceState(StrEnum):
    """What the node table says of a place."""

    #: A living node for every worker id, each with all that the shape asks for.
    WHOLE = "whole"
    #: Hosts are missing, or are to be drained.
    INCOMPLETE = "incomplete"
    #: Two living nodes say that they are the same worker.
    DOUBLE = "double"
    #: Its hosts, their number or its topology are not those of the shape, or no selector can name it.
    UNFIT = "unfit"


@dataclass(frozen=True, slots=True)
class Place:
    """One place as the node table shows it."""

    #: The slice's name; for GPU and CPU, and for TPU hosts without one, the node's id.
    name: str
    state: PlaceState
    #: What is wrong with it, in words; empty if it is whole.
    detail: str = ""
    #: Living nodes, by worker id.
    nodes: tuple[str, ...] = ()
    #: Those of them that say they are worker 0: a claim on the slice may land there.
    heads: tuple[str, ...] = ()
    #: Worker ids without a living node.
    missing: tuple[int, ...] = ()
    #: Units in which Ray counts each accelerator there.
    units: int = 1
    #: The kind of accelerator of a GPU or CPU node, as Ray's label `ray.io/accelerator-type` says; None if it says
    #: nothing.
    accelerator: str | None = None

    @property
    def whole(self) -> bool:
        """Whether a slice can be made there."""
        return self.state is PlaceState.WHOLE

    def findings(self) -> Iterator[Finding]:
        """Say what stands in the way of a slice there; nothing if it is whole."""
        if self.state is PlaceState.INCOMPLETE and self.missing:
            for worker_id in self.missing:
                text = f"{self.title} has no living node with worker id {worker_id}"
                yield Finding("host_missing", text, f"{self.name}/{worker_id}")
        elif not self.whole:
            yield Finding("place_unfit", f"{self.title} cannot be used: {self.detail}", self.name)

    @property
    def title(self) -> str:
        """What to call it: a slice by its name, a node by the beginning of its id."""
        return f"node {self.name[:8]}" if self.nodes == (self.name,) else f"slice {self.name}"


def place_of(node: Node, shape: SliceShape) -> str | None:
    """Return the name of the place that a node belongs to; None if it is dead or has no part in such slices."""
    if not node.alive:
        return None
    if isinstance(shape, TpuSlice):
        # One with chips may be part of such a slice though it does not say of what type that is.
        silent = node.pod_type is None and bool(node.resources.get("TPU"))
        if node.pod_type != shape.pod_type and shape.head_resource not in node.resources and not silent:
            return None
        return (node.place or node.id) if _selected(node, shape) else None
    accelerator = shape.devices_per_host.name
    if accelerator is not None and node.resources and not node.resources.get(accelerator):
        return None
    return node.id if _selected(node, shape) else None


def _selected(node: Node, shape: SliceShape) -> bool:
    """Whether a node meets the user's label selector."""
    return not shape.selector or matches({**node.labels, NODE_ID: node.id}, shape.selector)


def judge(name: str, nodes: Sequence[Node], shape: SliceShape) -> Place:
    """Say what the living nodes of one place make of it."""
    nodes = sorted(nodes, key=lambda node: (-1 if node.worker_id is None else node.worker_id, node.id))
    units = _units(nodes, shape)
    missing: tuple[int, ...] = ()
    heads: tuple[str, ...] = ()
    faults: list[tuple[PlaceState, str]] = []
    if isinstance(shape, TpuSlice):
        heads = tuple(node.id for node in nodes if node.worker_id == 0 or shape.head_resource in node.resources)
        there = Counter(node.worker_id for node in nodes)
        missing = tuple(worker_id for worker_id in range(shape.hosts) if worker_id not in there)
        faults += _misnamed(name, nodes)
        faults += _unlike(nodes, there, shape)
    faults += _lacking(nodes, shape, units)
    if missing:
        faults.append((PlaceState.INCOMPLETE, _absent(nodes, missing, shape)))
    faults += [(PlaceState.INCOMPLETE, f"{_host(node)} is being drained") for node in nodes if _drains(node)]
    state = next((state for state in _WORST_FIRST if any(state is found for found, _ in faults)), PlaceState.WHOLE)
    return Place(
        name,
        state,
        _tell(list(dict.fromkeys(text for _, text in faults))),
        tuple(node.id for node in nodes),
        heads,
        missing,
        units,
        None if isinstance(shape, TpuSlice) else nodes[0].accelerator,
    )


def survey(nodes: Mapping[str, Node], shape: SliceShape) -> dict[str, Place]:
    """Return every place of the node table, by name."""
    members: dict[str, list[Node]] = {}
    for node in nodes.values():
        name = place_of(node, shape)
        if name is not None:
            members.setdefault(name, []).append(node)
    return {name: judge(name, members[name], shape) for name in sorted(members)}


_WORST_FIRST = (PlaceState.UNFIT, PlaceState.DOUBLE, PlaceState.INCOMPLETE)


def _misnamed(name: str, nodes: Sequence[Node]) -> Iterator[tuple[PlaceState, str]]:
    if nodes[0].place is None:
        yield PlaceState.UNFIT, "its node has no label ray.io/tpu-slice-name (is TPU_NAME set there?)"
    elif not is_value(name):
        rule = "up to 63 letters, digits, '-', '_' and '.'"
        yield PlaceState.UNFIT, f"no label selector of Ray can carry its name of {len(name)} characters: {rule}"


def _unlike(
    nodes: Sequence[Node], there: Mapping[int | None, int], shape: TpuSlice
) -> Iterator[tuple[PlaceState, str]]:
    """Compare the slice as a whole: its type, its topology, and who says to be which worker."""
    if not any(node.pod_type or shape.head_resource in node.resources for node in nodes):
        ids = ", ".join(node.id[:8] for node in nodes)
        yield PlaceState.UNFIT, f"no pod type is said by {ids} (is TPU_ACCELERATOR_TYPE set there?)"
    for topology in dict.fromkeys(node.topology for node in nodes if node.topology):
        if not same_topology(topology, shape.topology):
            yield PlaceState.UNFIT, f"has topology {topology}, the shape asks {shape.topology}"
    beyond = [str(worker_id) for worker_id in there if worker_id is not None and worker_id >= shape.hosts]
    if beyond:
        hosts = f"{shape.hosts} host{'s' * (shape.hosts != 1)}"
        yield PlaceState.UNFIT, f"has worker id {', '.join(beyond)}, but a {shape.pod_type} slice has {hosts}"
    for worker_id, count in there.items():
        if worker_id is not None and count > 1:
            ids = ", ".join(node.id[:8] for node in nodes if node.worker_id == worker_id)
            yield PlaceState.DOUBLE, f"{count} nodes say that they are worker {worker_id}: {ids}"


def _lacking(nodes: Sequence[Node], shape: SliceShape, units: int) -> Iterator[tuple[PlaceState, str]]:
    """Compare what every host offers in all with what is asked of it."""
    accelerator = shape.devices_per_host.name if isinstance(shape, TpuSlice) else None
    bundle = shape.bundle
    for node in nodes:
        if not node.resources:
            continue
        for name, amount in bundle.items():
            has = node.resources.get(name, 0.0)
            asked = amount * units if name == accelerator else amount
            short = round(has * _PARTS) < round(asked * _PARTS)
            if short or (name == accelerator and has != asked):
                yield PlaceState.UNFIT, f"{_host(node)} has {_say(has, name)}, the shape asks {_say(amount, name)}"


def _units(nodes: Sequence[Node], shape: SliceShape) -> int:
    """Return in how many units Ray counts a chip of these hosts; 1 if they do not agree."""
    if not isinstance(shape, TpuSlice):
        return 1
    counts = {node.resources.get("TPU", 0.0) / shape.chips_per_host for node in nodes if node.resources}
    found = counts.pop() if len(counts) == 1 else 1
    return int(found) if found >= 1 and found == int(found) else 1


def _absent(nodes: Sequence[Node], missing: Sequence[int], shape: SliceShape) -> str:
    labels = f" and the labels {dict(shape.selector)}" if shape.selector else ""
    text = f"no living node has worker id {', '.join(map(str, missing))}{labels}"
    nameless = sum(node.worker_id is None for node in nodes)
    return f"{text}; {nameless} of its nodes have none (is TPU_WORKER_ID set there?)" if nameless else text


def _tell(faults: Sequence[str]) -> str:
    more = len(faults) - _TOLD
    return "; ".join([*faults[:_TOLD], *([f"and {more} faults more"] if more > 0 else [])])


def _drains(node: Node) -> bool:
    return node.drain_epoch_s is not None


def _host(node: Node) -> str:
    if node.worker_id is not None:
        return f"worker {node.worker_id}"
    return f"node {node.id[:8]}" if node.place is not None else "it"


def _say(amount: float, resource: str) -> str:
    return f"{amount / _GIB:.3g} GiB of memory" if resource == "memory" else f"{amount:g} {resource}"
