"""What one table makes of another: which transition of a record takes others along, as one checked value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from sliceform.states.attempts import ATTEMPT_TABLE, AttemptTrigger
from sliceform.states.errors import TableError
from sliceform.states.hosts import HOST_TABLE, HostTrigger
from sliceform.states.reasons import Reason
from sliceform.states.runs import RUN_TABLE, RunTrigger
from sliceform.states.slices import SLICE_TABLE, SliceTrigger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sliceform.states.table import TransitionTable


#: All tables, by the kind of record that each moves.
TABLES: Mapping[str, TransitionTable[Any, Any]] = MappingProxyType(
    {table.name: table for table in (SLICE_TABLE, HOST_TABLE, RUN_TABLE, ATTEMPT_TABLE)}
)


class Whose(StrEnum):
    """Which records a coupling takes along, seen from the one that moved."""

    #: Of a slice.
    HOSTS = "its hosts"
    #: Of an attempt: those that it was given.
    SLICES = "its slices"
    #: Of a slice: the one that it works for. Of a run: the newest.
    ATTEMPT = "its attempt"
    #: Of an attempt.
    RUN = "its run"


class Coupling(NamedTuple):
    """One transition that takes others along, wherever those are legal."""

    table: TransitionTable[Any, Any]
    trigger: StrEnum
    whose: Whose
    then_table: TransitionTable[Any, Any]
    then: StrEnum
    #: Why it is so.
    doc: str
    #: The reason of what follows; None = that of what it follows.
    reason: Reason | None = None

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.table.name} {self.trigger} -> {self.whose}: {self.then_table.name} {self.then}"


@dataclass(frozen=True, slots=True)
class Couplings:
    """All couplings, checked when built; what contradicts the tables is refused with a `TableError`."""

    rows: tuple[Coupling, ...]
    _index: Mapping[tuple[str, str], tuple[Coupling, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the rows and build the look-up."""
        if faults := tuple(_faults(self.rows)):
            raise TableError("couplings", faults)
        index: dict[tuple[str, str], tuple[Coupling, ...]] = {}
        for row in self.rows:
            key = (row.table.name, row.trigger.value)
            index[key] = (*index.get(key, ()), row)
        object.__setattr__(self, "_index", index)

    def of(self, table: str, trigger: str) -> tuple[Coupling, ...]:
        """Give what a transition takes along, in order; `table` is the name of a table."""
        return self._index.get((table, trigger), ())


_RELATED = {
    Whose.HOSTS: {("slice", "host")},
    Whose.SLICES: {("attempt", "slice")},
    Whose.ATTEMPT: {("slice", "attempt"), ("run", "attempt")},
    Whose.RUN: {("attempt", "run")},
}


def _faults(rows: Iterable[Coupling]) -> Iterator[str]:
    """Name everything that is wrong."""
    rows = tuple(rows)
    for row in rows:
        if not isinstance(row.trigger, row.table.triggers):
            yield f"{row}: {row.trigger!r} is no trigger of a {row.table.name}"
        if not isinstance(row.then, row.then_table.triggers):
            yield f"{row}: {row.then!r} is no trigger of a {row.then_table.name}"
        if (row.table.name, row.then_table.name) not in _RELATED[row.whose]:
            yield f"{row}: a {row.table.name} has no {row.then_table.name} as {row.whose}"
        if not row.doc.strip():
            yield f"{row}: it does not say why"
    ends = Counter((row.table.name, row.trigger, row.then_table.name) for row in rows)
    for (name, trigger, then), count in ends.items():
        if count > 1:
            yield f"{count} rows from {name} {trigger} to a {then}"
    yield from (f"{name} {trigger} leads back to itself" for name, trigger in _loops(rows))


def _loops(rows: tuple[Coupling, ...]) -> Iterator[tuple[str, StrEnum]]:
    """Name transitions that would take themselves along, so that the fixed point is always reached."""
    onward: dict[tuple[str, StrEnum], list[tuple[str, StrEnum]]] = {}
    for row in rows:
        onward.setdefault((row.table.name, row.trigger), []).append((row.then_table.name, row.then))
    for first, following in onward.items():
        seen: set[tuple[str, StrEnum]] = set()
        todo = list(following)
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo.extend(onward.get(node, ()))
        if first in seen:
            yield first


_TOGETHER = "The hosts of a slice come, are lost and go together."

#: Every coupling. A record for which the transition is not legal has made it already, or is past it, and stays.
COUPLINGS = Couplings(
    (
        Coupling(SLICE_TABLE, SliceTrigger.CREATE, Whose.HOSTS, HOST_TABLE, HostTrigger.CREATE, _TOGETHER),
        Coupling(
            SLICE_TABLE,
            SliceTrigger.PREEMPT,
            Whose.HOSTS,
            HOST_TABLE,
            HostTrigger.PREEMPT,
            _TOGETHER,
            Reason.HOST_LOST_TOGETHER,
        ),
        Coupling(SLICE_TABLE, SliceTrigger.EXPIRE, Whose.HOSTS, HOST_TABLE, HostTrigger.DRAIN, _TOGETHER),
        Coupling(SLICE_TABLE, SliceTrigger.DRAIN, Whose.HOSTS, HOST_TABLE, HostTrigger.DRAIN, _TOGETHER),
        Coupling(SLICE_TABLE, SliceTrigger.RELEASE, Whose.HOSTS, HOST_TABLE, HostTrigger.RELEASE, _TOGETHER),
        Coupling(
            RUN_TABLE,
            RunTrigger.START,
            Whose.ATTEMPT,
            ATTEMPT_TABLE,
            AttemptTrigger.CREATE,
            "A run works through attempts.",
            Reason.ATTEMPT_STARTED,
        ),
        Coupling(
            ATTEMPT_TABLE,
            AttemptTrigger.CREATE,
            Whose.SLICES,
            SLICE_TABLE,
            SliceTrigger.START,
            "An attempt takes its slices.",
            Reason.RUN_STARTED,
        ),
        Coupling(
            SLICE_TABLE,
            SliceTrigger.PREEMPT,
            Whose.ATTEMPT,
            ATTEMPT_TABLE,
            AttemptTrigger.STOP,
            "An attempt cannot go on without one of its slices.",
        ),
        Coupling(
            SLICE_TABLE,
            SliceTrigger.DRAIN,
            Whose.ATTEMPT,
            ATTEMPT_TABLE,
            AttemptTrigger.STOP,
            "An attempt cannot go on without one of its slices.",
        ),
        Coupling(
            ATTEMPT_TABLE,
            AttemptTrigger.SUCCEEDED,
            Whose.RUN,
            RUN_TABLE,
            RunTrigger.SUCCEEDED,
            "A run is done when an attempt of it is.",
            Reason.RUN_FINISHED,
        ),
        Coupling(
            ATTEMPT_TABLE,
            AttemptTrigger.CANCELLED,
            Whose.RUN,
            RUN_TABLE,
            RunTrigger.CANCELLED,
            "An attempt is cancelled only with its run.",
            Reason.RUN_FINISHED,
        ),
    )
)
