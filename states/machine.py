"""The engine: the only place that moves a record, and the only one that knows `transitions`.

One `transitions.Machine` per table drives all records of that kind, which stay plain slotted
objects. It has no callbacks: a transition moves the record and appends one change, and what it asks
for is returned to the caller, to be done after the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol

from transitions import Machine

from sliceform.states.errors import InvalidTransition
from sliceform.states.records import SliceRecord
from sliceform.states.table import S, T

if TYPE_CHECKING:
    from sliceform.states.history import Change, History
    from sliceform.states.reasons import Reason
    from sliceform.states.table import Row, TransitionTable


class Life(Protocol[S]):
    """What the engine needs of a record."""

    @property
    def id(self) -> str:
        """Its id, the key of its changes."""

    #: Its state; None before entry and after exit.
    state: S | None
    #: When it came into that state, on the monotonic clock, and in seconds since the epoch.
    since: float
    at: float
    #: Why it is in that state.
    reason: Reason | None
    #: The same in free text.
    detail: str


class Engine(Generic[S, T]):
    """Moves the records of one table and writes down every move."""

    def __init__(self, table: TransitionTable[S, T], history: History) -> None:
        """Build the one machine that all records of this table share."""
        self.table = table
        self.history = history
        #: The shared machine, for those who want to check it against the table.
        self.machine = build_machine(table)
        self._trigger = {name: event.trigger for name, event in self.machine.events.items()}

    def fire(
        self,
        record: Life[S],
        trigger: T,
        *,
        now: float,
        at: float,
        tick: int,
        reason: Reason,
        detail: str = "",
        cause: str | None = None,
    ) -> Row[S, T]:
        """Move the record, write it down, and give the row, whose effects are now asked for.

        `now` is on the monotonic clock, `at` in seconds since the epoch. A trigger that is not
        legal raises `InvalidTransition` and changes nothing.
        """
        source = record.state
        row = self.table.row(source, trigger)
        if row is None:
            raise InvalidTransition(
                record.id,
                None if source is None else source.value,
                str(trigger),
                tuple(legal.value for legal in self.table.legal(source)),
                self.history.story(record.id),
            )
        if source is None or row.dest is None:
            # Entry is construction, and `transitions` takes a missing destination for "stay".
            record.state = row.dest
        else:
            self._trigger[trigger](record)
        record.since = now
        record.at = at
        record.reason = reason
        record.detail = detail
        if isinstance(record, SliceRecord):
            record.version += 1
        self.history.append(
            tick=tick,
            at=at,
            kind=self.table.name,
            key=record.id,
            trigger=trigger.value,
            source=None if source is None else source.value,
            dest=None if row.dest is None else row.dest.value,
            reason=reason.value,
            detail=detail,
            cause=cause,
        )
        return row

    def note(
        self,
        record: Life[S],
        *,
        at: float,
        tick: int,
        reason: Reason,
        detail: str = "",
        cause: str | None = None,
    ) -> Change:
        """Write down something that happened to the record without moving it."""
        state = None if record.state is None else record.state.value
        return self.history.append(
            tick=tick,
            at=at,
            kind=self.table.name,
            key=record.id,
            trigger=None,
            source=state,
            dest=state,
            reason=reason.value,
            detail=detail,
            cause=cause,
        )


def build_machine(table: TransitionTable[S, T]) -> Machine:
    """Build the machine of a table, without its entry and exit, which it cannot express."""
    return Machine(
        model=None,
        states=table.states,
        initial=None,
        auto_transitions=False,
        transitions=[
            {"trigger": row.trigger.value, "source": row.source, "dest": row.dest}
            for row in table.rows
            if row.source is not None and row.dest is not None
        ],
    )
