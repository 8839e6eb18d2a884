"""Placement groups of a simulated cluster: who holds what, and who waits for room."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.testing.sim.cluster import SimCluster, SimNode, SimPlace
from sliceform.controller.testing.sim.timeline import Timeline


@dataclass(slots=True, eq=False)
class SimGroup:
    """One placement group: placed as a whole; the cluster moves single bundles when their node dies."""

    #: `<life>/head` or `<life>/hosts`.
    name: str
    shape: SliceShape
    #: Called when the group has found its place, and whenever a bundle has found another.
    on_placed: Callable[[], None]
    #: What must not be taken; see `Reserve`.
    avoid: frozenset[str] = frozenset()
    avoid_nodes: frozenset[str] = frozenset()
    accelerator: str | None = None
    #: The TPU slice that the hosts are pinned to; None for heads, GPU and CPU.
    pinned: SimPlace | None = None
    #: One node per bundle; None = not placed now.
    bundles: list[SimNode | None] = field(default_factory=list)
    removed: bool = False

    @property
    def is_head(self) -> bool:
        """Whether this claims the head of a TPU slice rather than its chips."""
        return self.pinned is None and isinstance(self.shape, TpuSlice)

    @property
    def placed(self) -> bool:
        """Whether every bundle has a node now."""
        return None not in self.bundles


class Placer:
    """Puts groups on nodes, first come first served, groups that lost a bundle before all others."""

    def __init__(self, cluster: SimCluster, timeline: Timeline) -> None:
        """Start with nothing placed."""
        self._cluster = cluster
        self._timeline = timeline
        self._waiting: dict[SimGroup, None] = {}
        self._torn: dict[SimGroup, None] = {}
        self._by_node: dict[SimNode, dict[SimGroup, None]] = {}
        #: Nodes with room, by what they have room for; may hold some that are not placeable now.
        self._heads: dict[SimNode, None] = {}
        self._rooms: dict[SimNode, None] = {}
        self._pass_due = False

    def joined(self, place: SimPlace) -> None:
        """Take machines into account that have joined."""
        for node in (*place.nodes, *place.doubles):
            if node.used < node.slots:
                self._rooms[node] = None
        for node in place.heads:
            if node.head is None:
                self._heads[node] = None
        self.look_again()

    def create(self, group: SimGroup, bundles: int) -> None:
        """Create a group; it is placed now, or when there is room."""
        group.bundles = [None] * bundles
        self._waiting[group] = None
        self._try(group)

    def remove(self, group: SimGroup) -> None:
        """Remove a group and free what it holds."""
        group.removed = True
        self._waiting.pop(group, None)
        self._torn.pop(group, None)
        for rank in range(len(group.bundles)):
            self._free(group, rank)
        self.look_again()

    def lost(self, node: SimNode) -> None:
        """Take bundles off a dead node; after a while the cluster looks for another place for them."""
        self._rooms.pop(node, None)
        self._heads.pop(node, None)
        for group in list(self._by_node.get(node, ())):
            for rank, held in enumerate(group.bundles):
                if held is node:
                    self._free(group, rank)
            self._timeline.after(self._timeline.timings.reschedule_s, partial(self._tear, group))

    def look_again(self) -> None:
        """Let those that wait be tried again: there may be room."""
        if not self._pass_due:
            self._pass_due = True
            self._timeline.after(0.0, self._pass)

    def holders(self, node: SimNode) -> Iterable[SimGroup]:
        """Return the groups with a bundle on this node."""
        return tuple(self._by_node.get(node, ()))

    def _tear(self, group: SimGroup) -> None:
        if not group.removed and not group.placed and group not in self._waiting:
            self._torn[group] = None
            self._try(group)

    def _pass(self) -> None:
        self._pass_due = False
        for group in (*self._torn, *self._waiting):
            self._try(group)

    def _try(self, group: SimGroup) -> None:
        if group.is_head:
            found = self._find_head(group)
        elif group.pinned is not None:
            found = self._find_pinned(group, group.pinned)
        else:
            found = self._find_rooms(group)
        if found is None:
            return
        for rank, node in found.items():
            self._claim(group, rank, node)
        self._waiting.pop(group, None)
        self._torn.pop(group, None)
        group.on_placed()

    def _find_head(self, group: SimGroup) -> dict[int, SimNode] | None:
        assert isinstance(group.shape, TpuSlice)
        fit = [
            node
            for node in self._heads
            if node.place.name not in group.avoid
            and node.id not in group.avoid_nodes
            and node.place.held_by is None
            and node.placeable
            and node.place.pod_type == group.shape.pod_type
        ]
        # Most of the time a full cluster has none.
        return {0: next(iter(self._timeline.by_whim(fit)))} if fit else None

    @staticmethod
    def _find_pinned(group: SimGroup, place: SimPlace) -> dict[int, SimNode] | None:
        found: dict[int, SimNode] = {}
        for rank, held in enumerate(group.bundles):
            if held is not None:
                continue
            workers = [node for node in place.workers(rank) if node.placeable and node.used < node.slots]
            fit = [node for node in workers if node.offers(group.shape.bundle)]
            if not fit or place.held_by is not None:
                return None
            found[rank] = fit[0]
        return found

    def _find_rooms(self, group: SimGroup) -> dict[int, SimNode] | None:
        exclusive, bundle = group.shape.exclusive_nodes, group.shape.bundle
        wanted = [rank for rank, node in enumerate(group.bundles) if node is None]
        taken = set(group.bundles) if exclusive else set()
        found: dict[int, SimNode] = {}
        for node in self._timeline.by_whim(self._rooms):
            if node.id in group.avoid or node in taken or not node.placeable:
                continue
            if group.accelerator not in {None, node.said.get("accelerator")} or not node.offers(bundle):
                continue
            if node.place.held_by is not None or node.place.shape.kind != group.shape.kind:
                continue
            for _ in range(1 if exclusive else node.slots - node.used):
                if wanted:
                    found[wanted.pop(0)] = node
            if not wanted:
                return found
        return None

    def _claim(self, group: SimGroup, rank: int, node: SimNode) -> None:
        group.bundles[rank] = node
        self._by_node.setdefault(node, {})[group] = None
        if group.is_head:
            node.head = group.name
            self._heads.pop(node, None)
            return
        node.used += 1
        if node.used >= node.slots:
            self._rooms.pop(node, None)

    def _free(self, group: SimGroup, rank: int) -> None:
        node = group.bundles[rank]
        if node is None:
            return
        group.bundles[rank] = None
        if node not in group.bundles:
            holders = self._by_node[node]
            holders.pop(group, None)
            if not holders:
                del self._by_node[node]
        if group.is_head:
            node.head = None
            if node.alive:
                self._heads[node] = None
            return
        node.used -= 1
        if node.alive:
            self._rooms[node] = None
