"""Judge a history by the tables and their couplings, which is all that may ever have happened.

Violations are given as sentences and nothing is raised, so that a test can show them all and a
running controller can log them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sliceform.states.attempts import ATTEMPT_TABLE
from sliceform.states.couplings import COUPLINGS, TABLES, Coupling, Whose
from sliceform.states.runs import RUN_TABLE
from sliceform.states.slices import SLICE_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sliceform.states.history.changes import Change

#: Where each legal (source, trigger) leads, by kind of record; in plain strings, as in a history.
_EDGES: dict[str, dict[tuple[str | None, str], str | None]] = {
    table.name: {(row.source, row.trigger): row.dest for row in table.rows} for table in TABLES.values()
}
#: What `History.window` gives no states of before its first change.
_WITHOUT_BASE = frozenset({RUN_TABLE.name, ATTEMPT_TABLE.name})


def replay(changes: Iterable[Change], base: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Follow every record from its entry and name each change that does not fit or was not followed.

    `base` gives the states of the slices and hosts that lived before the first change, for a history whose beginning
    was dropped (see `History.window`); runs and attempts are followed from the first change that is kept. Notes fit
    anywhere. What follows from a coupling comes in the same tick: the last tick may not be over, so that its couplings
    are not judged, nor are those of one that a driver did not live to finish (its journal is closed as tick 0).
    """
    return tuple(_Replay(dict(base or {})).judge(changes))


class _Replay:
    """One walk through a history."""

    def __init__(self, states: dict[str, str]) -> None:
        """Begin with these states by id."""
        self._states = states
        self._left: set[str] = set()
        self._parts: dict[str, set[str]] = {}
        for key in states:
            self._parts.setdefault(key.rpartition("/")[0], set()).add(key)
        #: The attempt that each slice was given to last, and the slices of each attempt.
        self._attempt: dict[str, str] = {}
        self._slices: dict[str, set[str]] = {}

    def judge(self, changes: Iterable[Change]) -> Iterator[str]:
        """Follow the changes; after a misfit, go on from where the change says it led."""
        owed: list[tuple[Change, Coupling]] = []
        last_seq = tick = 0
        for change in changes:
            if change.seq <= last_seq:
                yield f"change {change.seq} of {change.key} comes after change {last_seq}"
            last_seq = change.seq
            if change.tick != tick:
                yield from self._missing(owed if change.tick else ())
                owed, tick = [], change.tick
            if change.is_note:
                continue
            yield from self._misfits(change)
            self._take(change)
            owed += [(change, coupling) for coupling in COUPLINGS.of(change.kind, change.trigger or "")]

    def _misfits(self, change: Change) -> Iterator[str]:
        where = f"change {change.seq} of {change.key}"
        edges = _EDGES.get(change.kind)
        if edges is None:
            yield f"{where} is of an unknown kind: {change.kind}"
            return
        state = self._states.get(change.key)
        if change.key in self._left:
            yield f"{where} follows the end of its life"
        if change.source != state and not (state is None and change.kind in _WITHOUT_BASE):
            yield f"{where} starts from {_name(change.source)}, but it was in {_name(state)}"
        edge = (change.source, change.trigger or "")
        if edge not in edges:
            yield f"{where} is not legal: {change.trigger} from {_name(change.source)}"
        elif edges[edge] != change.dest:
            yield f"{where} leads to {_name(change.dest)}, but should to {_name(edges[edge])}"

    def _take(self, change: Change) -> None:
        if change.dest is None:
            self._states.pop(change.key, None)
            self._left.add(change.key)
        else:
            self._states[change.key] = change.dest
        if change.owner != change.key:
            self._parts.setdefault(change.owner, set()).add(change.key)
        if change.kind == SLICE_TABLE.name and change.trigger == "start" and change.cause is not None:
            self._attempt[change.key] = change.cause
            self._slices.setdefault(change.cause, set()).add(change.key)

    def _missing(self, owed: Iterable[tuple[Change, Coupling]]) -> Iterator[str]:
        """Name records that a change should have taken along in its tick and that stand where they could still go."""
        for change, coupling in owed:
            for key in sorted(self._related(change, coupling.whose)):
                state = self._states.get(key)
                if state is not None and (state, coupling.then) in _EDGES[coupling.then_table.name]:
                    yield f"change {change.seq} of {change.key} left {key} in {state}, but {coupling}"

    def _related(self, change: Change, whose: Whose) -> set[str]:
        if whose is Whose.SLICES:
            return self._slices.get(change.key, set())
        if whose is Whose.RUN:
            return {change.owner}
        if whose is Whose.ATTEMPT and change.kind == SLICE_TABLE.name:
            return {self._attempt[change.key]} if change.key in self._attempt else set()
        return self._parts.get(change.key, set())


def _name(state: str | None) -> str:
    """Write a state, or that there is none."""
    return "[*]" if state is None else str(state)
