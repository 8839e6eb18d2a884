"""The places of the cluster as readers see them: an immutable value that prints as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sliceform.controller.reconcile.decide.places import Place
from sliceform.controller.reconcile.ledger import Ledger


class PlaceStatus(NamedTuple):
    """One place: a TPU slice, or a node for GPU and CPU slices."""

    #: Slice name or node id.
    name: str
    #: `held` by slices of this fleet, `avoided`, `quarantined`, or what the node table says: `whole` (whoever else may
    #: hold it), `incomplete`, `double` (a worker id twice) or `unfit` (not what the shape asks for).
    state: str
    #: Ids of the slices of this fleet that are there.
    slices: tuple[str, ...]
    #: What is wrong with it, in words.
    detail: str
    #: Ids of its living nodes, by worker id.
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetPlaces:
    """All places that could carry a slice of the fleet's shape, or lack something for it; by name."""

    places: tuple[PlaceStatus, ...]

    def __iter__(self) -> Iterator[PlaceStatus]:
        """Go through them by name."""
        return iter(self.places)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def __getitem__(self, name: str) -> PlaceStatus:
        """Return a place by its name.

        Raises:
            KeyError: there is none.

        """
        for place in self.places:
            if place.name == name:
                return place
        raise KeyError(name)

    def __str__(self) -> str:
        """Draw them as a table for people."""
        if not self.places:
            return "no place for slices of this shape"
        width = min(48, max(len(place.name) for place in self.places))
        return "\n".join(
            f"{place.name:<{width}}  {place.state:<11}  {len(place.nodes)} nodes  "
            f"{'; '.join(part for part in (', '.join(place.slices), place.detail) if part)}".rstrip()
            for place in self.places
        )


def places_now(ledger: Ledger) -> FleetPlaces:
    """Return all places as they stand; on the loop's thread."""
    known = ledger.place_map.places
    gone = ledger.fleet.places.names() - known.keys()
    rows = [_row(ledger, name, known.get(name)) for name in sorted(known.keys() | gone)]
    return FleetPlaces(tuple(rows))


def _row(ledger: Ledger, name: str, place: Place | None) -> PlaceStatus:
    nodes = () if place is None else place.nodes
    slices = _slices(ledger, name, nodes)
    avoided = ledger.fleet.places.avoided.get(name)
    detail = "no living node" if place is None else place.detail
    state = "" if place is None else place.state.value
    if avoided is not None:
        state = "quarantined" if avoided.cause == "quarantined" else "avoided"
        detail = "; ".join(part for part in (f"{avoided.cause}: {avoided.detail}", detail) if part)
    return PlaceStatus(name, "held" if slices else state, slices, detail, nodes)


def _slices(ledger: Ledger, name: str, nodes: tuple[str, ...]) -> tuple[str, ...]:
    holder = ledger.place_map.holders.get(name)
    if holder is not None:
        return (holder,)
    return tuple(sorted({life for life, _ in ledger.users.get(name, ())})) if nodes == (name,) else ()
