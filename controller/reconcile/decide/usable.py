"""Keep count of the places that reservations may go to: each change costs the same, however many there are."""

from __future__ import annotations

from collections import Counter

from sliceform.controller.reconcile.decide.places import Place


class Usable:
    """The places that are whole and that nobody has to keep away from."""

    def __init__(self) -> None:
        """Start with none."""
        #: Those that, as far as we can see, are free.
        self.free: set[str] = set()
        #: Kinds of accelerators of GPU and CPU nodes, as far as Ray names them, and how many nodes are of which.
        self.kind_of: dict[str, str] = {}
        self.kinds: Counter[str] = Counter()

    def put(self, name: str, place: Place | None, *, held: bool) -> None:
        """Take in what a place is now, None if it is not to be used, and whether a slice of ours holds it."""
        if place is None or held:
            self.free.discard(name)
        else:
            self.free.add(name)
        before = self.kind_of.pop(name, None)
        if before is not None:
            self.kinds[before] -= 1
            if not self.kinds[before]:
                del self.kinds[before]
        if place is not None and place.accelerator is not None:
            self.kind_of[name] = place.accelerator
            self.kinds[place.accelerator] += 1
