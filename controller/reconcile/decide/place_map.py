"""Keep the places of the node table current, and say where nothing is to be reserved now.

Only places whose nodes changed are judged anew. The loop's thread owns it; no I/O and no clock: `now` is loop time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sliceform.controller.model.effects import Reserve
from sliceform.controller.model.events import Node
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.reconcile.decide.places import Place, PlaceState, judge, place_of
from sliceform.controller.reconcile.decide.usable import Usable

#: Hosts of a new slice join one after the other: for so long after the first, seconds, a claim may wait there for the
#: rest. Without that claim an autoscaler would take the slice for somebody else's, and start another.
JOINING_S = 300.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where reservations may go, as things stand.

    What may be as large as the cluster is not copied: the map keeps it current.
    """

    #: TPU slices that are to carry no slice of ours now, and why. For the others Ray itself finds nodes that fit.
    barred: Mapping[str, str]
    #: What a reservation that is made now keeps away from; see `Reserve`.
    avoid: frozenset[str]
    avoid_nodes: frozenset[str]
    #: Those of them where it could land and that will not become fit by themselves.
    traps: frozenset[str]
    trap_nodes: frozenset[str]
    #: Places that are whole and, as far as we can see, free.
    free: AbstractSet[str]
    #: The place of every node that has one.
    place_of: Mapping[str, str]
    #: Of GPU and CPU nodes that could carry a host, how many are of which kind of accelerator, as far as Ray names it.
    kinds: Mapping[str, int]
    #: And which node is of which, if there are several.
    kind_of: Mapping[str, str]

    def traps_it(self, asked: Reserve) -> bool:
        """Whether a reservation that waits may land where it must not."""
        return not (self.traps <= asked.avoid and self.trap_nodes <= asked.avoid_nodes)

    def is_missed_by(self, asked: Reserve) -> bool:
        """Whether a reservation that waits keeps away from a place that is whole and free."""
        places = {self.place_of.get(node, "") for node in asked.avoid_nodes}
        return not (self.free.isdisjoint(asked.avoid) and self.free.isdisjoint(places))


class PlaceMap:
    """All places, and which of our slices is on which TPU slice."""

    def __init__(self, shape: SliceShape) -> None:
        """Start before the first read of the node table."""
        self._shape = shape
        self._nodes: Mapping[str, Node] = {}
        #: Tuples, which the garbage collector need not go through again and again.
        self._members: dict[str, tuple[str, ...]] = {}
        self._place_of: dict[str, str] = {}
        #: Places of which hosts are still to join, with the time until which that is no fault.
        self._joining: dict[str, float] = {}
        self.places: dict[str, Place] = {}
        #: TPU slices that are not whole.
        self._faulty: dict[str, Place] = {}
        self.usable = Usable()
        #: The last outlook, of which version it is, what it was to keep away from, and which places changed since.
        self._outlook: Outlook | None = None
        self._seen = -1
        self._avoided: frozenset[str] = frozenset()
        self._changed: set[str] = set()
        #: Which of our slices is on which TPU slice, and those of them that are not about to leave it.
        self.holders: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        #: Grows with everything that may change where reservations go.
        self.version = 0

    def take(self, nodes: Mapping[str, Node], changed: Iterable[str], now: float) -> None:
        """Take in a read of the node table, in which the rows of `changed` differ from the read before."""
        self._nodes = nodes
        touched: set[str] = set()
        for node_id in changed:
            row = nodes.get(node_id)
            name = None if row is None else place_of(row, self._shape)
            old = self._place_of.pop(node_id, None)
            if old is not None:
                self._members[old] = tuple(member for member in self._members[old] if member != node_id)
                touched.add(old)
            if name is not None:
                self._place_of[node_id] = name
                self._members[name] = (*self._members.get(name, ()), node_id)
                touched.add(name)
        for name in touched:
            self._look(name, now)

    def settle(self, now: float) -> None:
        """Let the time be over of places whose hosts were still to join."""
        over = [name for name, until in self._joining.items() if now >= until]
        for name in over:
            del self._joining[name]
        self.version += bool(over)

    @property
    def due(self) -> float:
        """The loop time at which that of the next one is over."""
        return min(self._joining.values(), default=float("inf"))

    def hold(self, place: str, slice_id: str) -> None:
        """Note that a slice has taken a place."""
        self.holders[place] = self.owners[place] = slice_id
        self._change(place)

    def give_up(self, place: str, slice_id: str) -> None:
        """Note that a slice is about to leave a place: the next may take it as soon as there is room."""
        if self.owners.get(place) == slice_id:
            del self.owners[place]

    def leave(self, place: str, slice_id: str) -> None:
        """Note that a slice has left a place, unless another has taken it since."""
        self.give_up(place, slice_id)
        if self.holders.get(place) == slice_id:
            del self.holders[place]
            self._change(place)

    def units(self, place: str | None) -> int:
        """Return in how many units Ray counts each accelerator of a place."""
        known = self.places.get(place or "")
        return 1 if known is None else known.units

    def accelerator(self, node_id: str) -> str | None:
        """Return what kind of accelerator a node has, as far as Ray names it."""
        row = self._nodes.get(node_id)
        return None if row is None else row.accelerator

    def outlook(self, avoided: frozenset[str]) -> Outlook:
        """Say where reservations may go, if they are also to keep away from the places in `avoided`."""
        if self._outlook is None or self._seen != self.version or avoided != self._avoided:
            changed = self._changed | (avoided ^ self._avoided)
            self._seen, self._avoided, self._changed = self.version, avoided, set()
            for name in changed:
                self._count(name)
            self._outlook = self._look_out()
        return self._outlook

    def _count(self, name: str) -> None:
        place = self.places.get(name)
        if place is not None and (not place.whole or name in self._avoided):
            place = None
        self.usable.put(name, place, held=name in self.holders)

    def _look_out(self) -> Outlook:
        avoided, usable = self._avoided, self.usable
        barred: dict[str, str] = {}
        names, nodes = set(avoided), set[str]()
        traps, trap_nodes = {name for name in avoided if self._may_land(name)}, set[str]()
        for name, place in self._faulty.items():
            # A place whose hosts are still to join is left alone only while there is a whole one instead.
            if name in self._joining and not usable.free:
                continue
            barred[name] = place.detail
            # No selector may be able to name it, and what is double may be two slices: their heads say which.
            by_head = place.state is not PlaceState.INCOMPLETE
            nodes.update(place.heads if by_head else ())
            names.update(() if by_head else (name,))
            if name not in self._joining:
                trap_nodes.update(place.heads if by_head else ())
                traps.update((name,) if not by_head and place.heads else ())
        return Outlook(
            barred=barred,
            avoid=frozenset(names),
            avoid_nodes=frozenset(nodes),
            traps=frozenset(traps),
            trap_nodes=frozenset(trap_nodes),
            free=usable.free,
            place_of=self._place_of,
            kinds=usable.kinds,
            kind_of=usable.kind_of if len(usable.kinds) > 1 else {},
        )

    def _may_land(self, name: str) -> bool:
        """Whether a reservation could land on a place: a head is there, or the node itself."""
        place = self.places.get(name)
        return place is not None and bool(place.heads or not isinstance(self._shape, TpuSlice))

    def _look(self, name: str, now: float) -> None:
        before = self.places.pop(name, None)
        self._faulty.pop(name, None)
        after = None
        if self._members[name]:
            after = judge(name, [self._nodes[node] for node in self._members[name]], self._shape)
            self.places[name] = after
            if isinstance(self._shape, TpuSlice) and not after.whole:
                self._faulty[name] = after
        else:
            del self._members[name]
        if after is None or after.state is not PlaceState.INCOMPLETE:
            self._joining.pop(name, None)
        elif before is None:
            self._joining[name] = now + JOINING_S
        if after != before:
            self._change(name)

    def _change(self, name: str) -> None:
        self._changed.add(name)
        self.version += 1
