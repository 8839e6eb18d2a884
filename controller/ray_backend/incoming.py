"""Which slices are on their way and nobody's yet: hosts that have joined, and those that the autoscaler awaits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from sliceform.controller.model.events import Node
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.ray_backend import private
from sliceform.controller.ray_backend.groups import Selector
from sliceform.controller.ray_backend.lives import Holding
from sliceform.controller.ray_backend.nodes import SLICE_NAME
from sliceform.controller.reconcile.decide.places import NODE_ID, Place, PlaceState, place_of, survey

#: What is free on every node.
Free = Mapping[str, Mapping[str, float]]

#: Label with the name of the node type, as the autoscaler calls it.
_GROUP = "ray.io/node-group"
#: From when hosts that were asked for and make no whole slice count as rounded off, seconds: a few steps.
_STRAY_S = 15.0


class Incoming:
    """What was seen of slices, look by look.

    The autoscaler tells what it knew at its last step, some seconds ago: hosts that have joined since are still pending
    to it, and are not counted twice.
    """

    def __init__(self, shape: TpuSlice) -> None:
        """Take what the slices look like."""
        self._shape = shape
        #: How many slices are asked for or on their way, or there and free.
        self.coming = 0
        #: How many hosts the autoscaler has asked for and not been given, and how many of these it rounded off:
        #: nobody makes them.
        self.requested = 0
        self.stray = 0
        self._requested_since = 0.0
        #: How many of the fleet's slices, and of those that were on their way with pods of their own, were found gone.
        self.gone = 0
        #: Hosts of slices that are to be the fleet's and have not all of their hosts.
        self.unfinished: tuple[Node, ...] = ()
        #: Keeps away from all hosts that are there and not on their way.
        self.kept_from: Selector = {}
        #: At the last look: living nodes by place, and those of them that have outlived another of their place.
        self._members: dict[str, frozenset[str]] = {}
        self._left: frozenset[str] = frozenset()
        #: At the last look: places that were claimed by the fleet, those that were counted, and how many these were at
        #: least, with pods that had not joined.
        self._claimed: frozenset[str] = frozenset()
        self._counted: frozenset[str] = frozenset()
        self._at_least = 0
        #: Node types that have had nodes, and whether these were of such slices; and how many of other types were
        #: pending at the first look: others', until `own` says otherwise.
        self._types: dict[str, bool] = {}
        self._others: Mapping[str, int] | None = None
        #: The autoscaler's newest step: which nodes were there when it was first read, and at the look before.
        self._step = 0
        self._known: frozenset[str] = frozenset()
        self._before: frozenset[str] = frozenset()
        self._living: frozenset[str] = frozenset()

    def look(
        self,
        now: float,
        nodes: Mapping[str, Node],
        free: Free | None,
        holdings: Iterable[Holding],
        told: private.Autoscaler,
    ) -> None:
        """Count what is on its way, and what is not any more; `now` in monotonic seconds."""
        held = [holding for holding in holdings if holding.held]
        claimed = frozenset(holding.reserved.place for holding in held if holding.reserved and holding.reserved.place)
        broken = self._learn(nodes)
        places = survey(nodes, self._shape)
        counted = self._count(places, nodes, claimed, free, held)
        joined = {node for name in counted for node in places[name].nodes}
        self._note_step(told)
        self._note_requested(now, self._ours(told.requested))
        pods = self._ours(told.pods)
        present = {node for place in places.values() for node in place.nodes}
        unknown, perhaps_unknown = len(present - self._known), len(present - self._before)
        self.coming = self._slices(len(joined) + max(0, self.requested - self.stray + pods - unknown))
        taken = sum(name in places and self._is_sound(places[name], nodes) for name in self._counted - counted)
        vanished = self._at_least - taken - self._slices(len(joined) + max(0, pods - unknown))
        self.gone = len(broken & self._claimed) + max(0, vanished)
        self._at_least = self._slices(len(joined) + max(0, pods - perhaps_unknown))
        self._claimed, self._counted = claimed, counted
        early = counted if any(holding.waits for holding in held) else frozenset()
        waited_for = [holding.reserved for holding in held if holding.reserved and not holding.assembled]
        early |= {reserved.place for reserved in waited_for if reserved.place}
        incomplete = [places[name] for name in early if name in places and not places[name].whole]
        self.unfinished = tuple(nodes[node] for place in incomplete for node in place.nodes)

    def own(self) -> None:
        """Count pending nodes of unknown types: the autoscaler has met demand with what was on its way before."""
        self._others = {}

    def _slices(self, hosts: int) -> int:
        return math.ceil(hosts / self._shape.hosts)

    def _learn(self, nodes: Mapping[str, Node]) -> frozenset[str]:
        """Take in the node table; return the places that lost a host and were sound before."""
        members: dict[str, set[str]] = defaultdict(set)
        for node in nodes.values():
            kind = node.labels.get(_GROUP)
            if kind:
                self._types[kind] = node.pod_type == self._shape.pod_type
            name = place_of(node, self._shape)
            if name is not None:
                members[name].add(node.id)
        broken = {
            name for name, before in self._members.items() if before - members.get(name, set()) and before - self._left
        }
        left = {node for node in self._left if node in nodes and nodes[node].alive}
        for name in broken:
            left |= self._members[name] & members.get(name, set())
        if not self._members:
            # What died before the first look tells of those that were there with it.
            dead = {node.place for node in nodes.values() if not node.alive}
            left.update(*(now for name, now in members.items() if name in dead and len(now) < self._shape.hosts))
        self._left = frozenset(left)
        self._members = {name: frozenset(now) for name, now in members.items()}
        return frozenset(broken)

    def _count(
        self,
        places: Mapping[str, Place],
        nodes: Mapping[str, Node],
        claimed: frozenset[str],
        free: Free | None,
        held: Iterable[Holding],
    ) -> frozenset[str]:
        """Return the places that are on their way or free, and say which hosts are neither."""
        asked = [holding.asked.avoid for holding in held if holding.waits and holding.asked is not None]
        avoided = frozenset.intersection(*asked) if asked else frozenset()
        counted: set[str] = set()
        names: list[str] = []
        ids: list[str] = []
        for name, place in places.items():
            usable = name not in avoided if place.whole else self._is_sound(place, nodes)
            if usable and name not in claimed and self._has_free_head(place, free):
                counted.add(name)
            elif place.whole:
                names.append(name)
            else:
                # By name it would keep away from those that come in their place, too.
                ids += place.nodes
        self.kept_from = _excluding(SLICE_NAME, names) | _excluding(NODE_ID, ids)
        return frozenset(counted)

    def _note_step(self, told: private.Autoscaler) -> None:
        if told.seen != self._step:
            self._step = told.seen
            self._known, self._before = told.living, self._living
        self._living = told.living

    def _note_requested(self, now: float, requested: int) -> None:
        if requested != self.requested:
            self.requested, self._requested_since = requested, now
        if now - self._requested_since >= _STRAY_S:
            self.stray = requested % self._shape.hosts
        self.stray = min(self.stray, requested)

    def _ours(self, pending: Mapping[str, int]) -> int:
        """Return how many of the nodes that the autoscaler waits for are to be hosts of such slices."""
        if self._others is None:
            self._others = dict(pending)
        hosts = 0
        for kind, count in pending.items():
            if kind not in self._types:
                hosts += max(0, count - self._others.get(kind, 0))
            elif self._types[kind]:
                hosts += count
        return hosts

    def _is_sound(self, place: Place, nodes: Mapping[str, Node]) -> bool:
        """Whether it is whole, or lacks only hosts that have never been there, and none is about to go."""
        if place.whole:
            return True
        if place.state is not PlaceState.INCOMPLETE or self._left.intersection(place.nodes):
            return False
        return all(nodes[node].drain_epoch_s is None for node in place.nodes)

    def _has_free_head(self, place: Place, free: Free | None) -> bool:
        """Whether nobody has claimed it, as far as is known: its worker 0 may still be missing."""
        head = self._shape.head_resource
        return free is None or all(node not in free or free[node].get(head, 0) >= 1 for node in place.heads)


def _excluding(label: str, values: list[str]) -> Selector:
    return {label: f"!in({','.join(sorted(values))})"} if values else {}
