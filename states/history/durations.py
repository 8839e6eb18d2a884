"""How long records were in their states."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sliceform.states.history.changes import Change


class Durations(NamedTuple):
    """Seconds by state."""

    #: By record, in the order in which they came.
    records: Mapping[str, Mapping[str, float]]

    def total(self, kind: str) -> dict[str, float]:
        """Sum over all records of a kind, ``"slice"`` or ``"host"``."""
        sums: dict[str, float] = defaultdict(float)
        for key, states in self.records.items():
            if ("/" in key) == (kind == "host"):
                for state, seconds in states.items():
                    sums[state] += seconds
        return dict(sums)


class Stretch(NamedTuple):
    """A time that a record spent in one state, seconds since the epoch."""

    begin: float
    end: float
    state: str
    #: The change that brought it there; None for what was before the oldest change that is kept.
    change: Change | None


def stretches(
    base: Mapping[str, str], changes: Sequence[Change], until: float | None = None
) -> dict[str, list[Stretch]]:
    """Give what every slice and host went through, by id, in the order in which they came.

    Those of `base` begin with the first change. What goes on ends at `until`, by default the latest time of a change.
    Without any change nothing is known of how long it went on.
    """
    end = max((change.at for change in changes), default=0.0) if until is None else until
    begin = changes[0].at if changes else end
    found: dict[str, list[Stretch]] = {key: [] for key in base}
    going_on: dict[str, tuple[float, str, Change | None]] = {key: (begin, state, None) for key, state in base.items()}
    for change in changes:
        if not change.moves_slice:
            continue
        before = found.setdefault(change.key, [])
        if change.key in going_on:
            since, state, cause = going_on.pop(change.key)
            before.append(Stretch(since, change.at, state, cause))
        if change.dest is not None:
            going_on[change.key] = (change.at, change.dest, change)
    for key, (since, state, cause) in going_on.items():
        found[key].append(Stretch(since, end, state, cause))
    return found


def measure(base: Mapping[str, str], changes: Sequence[Change], until: float | None) -> Durations:
    """Sum up how long slices and hosts were in their states; time that a clock was set back counts as none."""
    spent: dict[str, dict[str, float]] = {}
    for key, known in stretches(base, changes, until).items():
        states = spent[key] = defaultdict(float)
        for stretch in known:
            states[stretch.state] += max(0.0, stretch.end - stretch.begin)
    return Durations({key: dict(states) for key, states in spent.items()})
