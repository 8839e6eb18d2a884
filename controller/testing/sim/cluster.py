"""The machines of a simulated cluster: places, their nodes, and the node table that tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sliceform.controller.model.events import Node, NodesSeen
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.testing.sim.timeline import Action


@dataclass(slots=True, eq=False)
class SimNode:
    """One machine that has joined the cluster; it never comes back under the same id."""

    id: str
    place: SimPlace
    worker_id: int
    address: str
    #: How many bundles fit, and how many are on it.
    slots: int
    used: int = 0
    #: Whether the machine runs, and whether the node table says so.
    alive: bool = True
    listed: bool = True
    death: str = ""
    #: The node table took it for dead while it stood still: nobody knows what became of it.
    given_up: bool = False
    #: The whole machine stands still; only the cluster's own daemon on it does.
    frozen: bool = False
    daemon_frozen: bool = False
    #: Counts how often it began to stand still.
    freezes: int = 0
    #: Accelerators that it offers.
    devices: int = 0
    #: Why agents cannot start on it.
    broken: str | None = None
    drain_epoch_s: float | None = None
    #: Preemption notices that stand, by source.
    notices: dict[str, float | None] = field(default_factory=dict)
    #: What waits for the machine to go on.
    deferred: list[Action] = field(default_factory=list)
    #: The head group on it, by name, if it is worker 0 of a TPU slice.
    head: str | None = None
    #: Fields of its row in the node table that are not as its place would have them.
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def placeable(self) -> bool:
        """Whether the cluster can put something here, room aside."""
        return self.up and self.drain_epoch_s is None

    @property
    def up(self) -> bool:
        """Whether it runs, and the cluster has not given it up."""
        return self.alive and self.listed and not self.frozen and not self.daemon_frozen

    def offers(self, bundle: Mapping[str, float]) -> bool:
        """Whether it has what a bundle asks for, if its row says otherwise than its place would have it."""
        said = self.said.get("resources")
        return said is None or all(said.get(name, 0.0) >= amount for name, amount in bundle.items())

    def row(self) -> Node:
        """Return what the node table says."""
        shape = self.place.shape
        tpu = isinstance(shape, TpuSlice)
        resources = {name: amount * self.slots for name, amount in shape.bundle.items()}
        row = Node(
            id=self.id,
            alive=self.listed,
            place=self.place.name if tpu else None,
            worker_id=self.worker_id if tpu else None,
            pod_type=self.place.pod_type,
            address=self.address,
            death=self.death,
            drain_epoch_s=self.drain_epoch_s,
            topology=shape.topology if isinstance(shape, TpuSlice) else None,
            resources=resources,
        )
        return row._replace(**self.said)


@dataclass(slots=True, eq=False)
class SimPlace:
    """Machines that belong together: a TPU slice, or a rack of other nodes."""

    name: str
    shape: SliceShape
    #: By worker id; those of the machines that are there now, dead ones included.
    nodes: list[SimNode] = field(default_factory=list)
    #: Machines that say they are a worker which is there already.
    doubles: list[SimNode] = field(default_factory=list)
    #: Another user's group that holds the chips.
    held_by: str | None = None

    @property
    def heads(self) -> list[SimNode]:
        """The machines that offer the head of a TPU slice."""
        tpu = isinstance(self.shape, TpuSlice)
        return [node for node in self.workers(0) if tpu]

    def workers(self, worker_id: int) -> list[SimNode]:
        """Return the machines that say they are this worker."""
        return [node for node in (*self.nodes, *self.doubles) if node.worker_id == worker_id]

    @property
    def pod_type(self) -> str | None:
        """The pod type of a TPU slice."""
        return self.shape.pod_type if isinstance(self.shape, TpuSlice) else None


class SimCluster:
    """All machines; knows nothing of fleets."""

    def __init__(self, shape: SliceShape) -> None:
        """Take the shape of places that are added without one."""
        self.shape = shape
        self.places: dict[str, SimPlace] = {}
        self.nodes: dict[str, SimNode] = {}
        self._table: dict[str, Node] = {}
        self._dirty: dict[str, None] = {}
        self._count = 0

    def add(self, name: str | None, shape: SliceShape | None) -> SimPlace:
        """Let the machines of one slice join."""
        shape = shape or self.shape
        prefix = shape.pod_type if isinstance(shape, TpuSlice) else f"{shape.kind}-rack"
        name = name or f"{prefix}-{len(self.places) + 1}"
        if name in self.places:
            raise ValueError(f"there is a place named {name} already")
        place = self.places[name] = SimPlace(name, shape)
        self._join(place)
        return place

    def restore(self, place: SimPlace) -> list[SimNode]:
        """Let new machines join for those of a place that are dead, and return the dead ones."""
        gone = [node for node in place.nodes if not node.alive]
        if gone:
            self._join(place)
        return gone

    def double(self, place: SimPlace, worker_id: int) -> SimNode:
        """Let one more machine join that says it is a worker which is there already."""
        place.doubles.append(self._machine(place, worker_id, place.nodes[worker_id].slots))
        return place.doubles[-1]

    def forget(self, nodes: list[SimNode]) -> None:
        """Let rows of dead nodes vanish from the table."""
        for node in nodes:
            self.nodes.pop(node.id, None)
            self._dirty[node.id] = None

    def touch(self, node: SimNode) -> None:
        """Note that a node's row may read otherwise now."""
        self._dirty[node.id] = None

    def read(self) -> NodesSeen:
        """Read the node table; the mapping is shared with earlier reads while nothing changed."""
        if not self._dirty:
            return NodesSeen(self._table, frozenset())
        table, changed = dict(self._table), []
        for node_id in self._dirty:
            node = self.nodes.get(node_id)
            row = None if node is None else node.row()
            if row == table.get(node_id):
                continue
            changed.append(node_id)
            if row is None:
                del table[node_id]
            else:
                table[node_id] = row
        self._dirty.clear()
        if changed:
            self._table = table
        return NodesSeen(self._table, frozenset(changed))

    def truth(self) -> dict[str, Node]:
        """Return the node table as it would be if it knew at once which machines run."""
        return {node.id: node.row()._replace(alive=node.up) for node in self.nodes.values()}

    def node(self, place: str, worker_id: int) -> SimNode:
        """Return the machine that was the last to be this worker of a place."""
        found = self.place(place)
        if not 0 <= worker_id < len(found.nodes):
            raise ValueError(f"{place} has worker ids 0 to {len(found.nodes) - 1}, not {worker_id}")
        return found.nodes[worker_id]

    def place(self, name: str) -> SimPlace:
        """Return a place by name."""
        if name not in self.places:
            raise ValueError(f"no place is named {name}; there are {', '.join(self.places)}")
        return self.places[name]

    def _join(self, place: SimPlace) -> None:
        shape = place.shape
        count, slots = (shape.hosts, 1) if shape.exclusive_nodes else (1, shape.hosts)
        for worker_id in range(count):
            if worker_id < len(place.nodes) and place.nodes[worker_id].alive:
                continue
            node = self._machine(place, worker_id, slots)
            if worker_id < len(place.nodes):
                place.nodes[worker_id] = node
            else:
                place.nodes.append(node)

    def _machine(self, place: SimPlace, worker_id: int, slots: int) -> SimNode:
        self._count += 1
        number = self._count
        node = SimNode(
            id=f"{number:08x}{'0' * 48}",
            place=place,
            worker_id=worker_id,
            address=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            slots=slots,
            devices=place.shape.devices_per_host.count,
        )
        self.nodes[node.id] = node
        self._dirty[node.id] = None
        return node
