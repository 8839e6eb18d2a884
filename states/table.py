"""The transition table: one frozen value that machine, tests, docs and command line all read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from sliceform.states.effects import Effect
from sliceform.states.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


class Kind(StrEnum):
    """Where a trigger comes from."""

    #: Reflects what was observed; only the observing half of the loop fires it.
    FACT = "fact"
    #: Carries a decision; only the planner fires it.
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Row(Generic[S, T]):
    """One legal transition, what it asks for, and when it happens."""

    #: What fires it.
    trigger: T
    #: The state it starts from; None on entry.
    source: S | None
    #: The state it leads to; None on exit.
    dest: S | None
    #: Whether it is a fact or a command; the same for all rows of a trigger.
    kind: Kind
    #: What has to be done once it is committed.
    effects: tuple[Effect, ...]
    #: A sentence that says when it happens.
    doc: str


@dataclass(frozen=True, slots=True)
class TransitionTable(Generic[S, T]):
    """All legal transitions of one kind of record, checked when built.

    A table that contradicts itself is refused with a `TableError` that names every fault.
    """

    #: What the table describes, for example ``"slice"``; the kind of its records in the history.
    name: str
    #: The enum of its states.
    states: type[S]
    #: The enum of its triggers.
    triggers: type[T]
    #: Its transitions, in the order in which they are drawn.
    rows: tuple[Row[S, T], ...]
    _index: Mapping[tuple[S | None, T], Row[S, T]] = field(init=False, repr=False, compare=False)
    _legal: Mapping[S | None, tuple[T, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the rows and build the look-ups."""
        if faults := tuple(_faults(self)):
            raise TableError(self.name, faults)
        legal: dict[S | None, tuple[T, ...]] = {}
        for row in self.rows:
            legal[row.source] = (*legal.get(row.source, ()), row.trigger)
        index = {(row.source, row.trigger): row for row in self.rows}
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_legal", legal)

    def row(self, source: S | None, trigger: T) -> Row[S, T] | None:
        """Give the transition that `trigger` makes from `source`, or None if it is not legal."""
        return self._index.get((source, trigger))

    def legal(self, source: S | None) -> tuple[T, ...]:
        """Give the triggers that are legal in `source`; None means before entry."""
        return self._legal.get(source, ())

    @property
    def entry(self) -> Row[S, T]:
        """The row that creates a record."""
        return next(row for row in self.rows if row.source is None)


def _faults(table: TransitionTable[S, T]) -> Iterator[str]:
    """Name everything that is wrong; the graph is judged on the well-formed rows only."""
    formed: list[Row[S, T]] = []
    for row in table.rows:
        wrong = list(_row_faults(table, row))
        yield from wrong
        if not wrong:
            formed.append(row)
    yield from _repeats(formed)
    yield from _ends(formed)
    used = {row.trigger for row in formed}
    yield from (f"trigger {trigger} is not used" for trigger in table.triggers if trigger not in used)
    forth = [(row.source, row.dest) for row in formed]
    reached = _spread(forth)
    leaving = _spread((dest, source) for source, dest in forth)
    for state in table.states:
        if state not in reached:
            yield f"state {state} cannot be reached"
        if state not in leaving:
            yield f"state {state} cannot reach the exit"


def _row_faults(table: TransitionTable[S, T], row: Row[S, T]) -> Iterator[str]:
    """Name what is wrong with one row by itself."""
    label = f"row {row.trigger} from {row.source or '[*]'} to {row.dest or '[*]'}"
    if not isinstance(row.trigger, table.triggers):
        yield f"{label}: {row.trigger!r} is not a {table.triggers.__name__}"
    for state in (row.source, row.dest):
        if state is not None and not isinstance(state, table.states):
            yield f"{label}: {state!r} is not a {table.states.__name__}"
    if row.source is None and row.dest is None:
        yield f"{label}: it enters and exits at once"
    if not isinstance(row.kind, Kind):
        yield f"{label}: {row.kind!r} is not a Kind"
    for effect in row.effects:
        if not isinstance(effect, Effect):
            yield f"{label}: unknown effect {effect!r}"
    if not row.doc.strip():
        yield f"{label}: it does not say when it happens"


def _repeats(rows: list[Row[S, T]]) -> Iterator[str]:
    """Name pairs with two rows, and triggers with two kinds."""
    pairs = Counter((row.source, row.trigger) for row in rows)
    for (source, trigger), count in pairs.items():
        if count > 1:
            yield f"{count} rows for trigger {trigger} from {source or '[*]'}"
    kinds: dict[T, Kind] = {}
    clashing = {row.trigger for row in rows if kinds.setdefault(row.trigger, row.kind) != row.kind}
    for trigger in sorted(clashing):
        yield f"trigger {trigger} is a fact in one row and a command in another"


def _ends(rows: list[Row[S, T]]) -> Iterator[str]:
    """Name a missing or ambiguous entry, and a missing exit."""
    entries = sorted({row.trigger for row in rows if row.source is None})
    if not entries:
        yield "no row enters the machine"
    if len(entries) > 1:
        yield f"more than one trigger enters the machine: {', '.join(entries)}"
    if all(row.dest is not None for row in rows):
        yield "no row exits the machine"


def _spread(edges: Iterable[tuple[S | None, S | None]]) -> set[S]:
    """Follow the edges from outside the machine (None), without passing outside again."""
    onward: dict[S | None, list[S]] = {}
    for source, dest in edges:
        if dest is not None:
            onward.setdefault(source, []).append(dest)
    seen: set[S] = set()
    todo = list(onward.get(None, ()))
    while todo:
        state = todo.pop()
        if state not in seen:
            seen.add(state)
            todo.extend(onward.get(state, ()))
    return seen
