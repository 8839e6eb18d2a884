"""How long records were in their states."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sliceform.states.changes import Change


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


def measure(base: Mapping[str, str], changes: Sequence[Change], until: float | None) -> Durations:
    """Measure slices and hosts; those of `base` count from the first change, what goes on up to `until`.

    `until` is by default the latest time of a change. Time that a clock was set back counts as none.
    """
    begin = changes[0].at if changes else 0.0
    spent: dict[str, dict[str, float]] = {key: {} for key in base}
    open_since = dict.fromkeys(base, begin)
    state_of = dict(base)
    for change in changes:
        if change.is_note or change.kind == "run":
            continue
        _count(spent, state_of.pop(change.key, None), change.key, change.at - open_since.get(change.key, change.at))
        if change.dest is not None:
            state_of[change.key] = change.dest
            open_since[change.key] = change.at
    end = max((change.at for change in changes), default=begin) if until is None else until
    for key, state in state_of.items():
        _count(spent, state, key, end - open_since[key])
    return Durations(spent)


def _count(spent: dict[str, dict[str, float]], state: str | None, key: str, seconds: float) -> None:
    states = spent.setdefault(key, {})
    if state is not None:
        states[state] = states.get(state, 0.0) + max(0.0, seconds)
