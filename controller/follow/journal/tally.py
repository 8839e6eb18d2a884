"""What the writer knows of its file between two batches, and the rows that it keeps that in."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sliceform.controller.follow.journal.schema import CHANGE
from sliceform.states.history.changes import Change, follow

#: At least so many changes lie between two pictures of all states; more in a fleet that has more records.
_PICTURE_EVERY = 1000
#: Counts that are kept in a table of names and numbers.
_COUNTS = ("last_seq", "base_seq", "dropped", "next_slice", "next_run")


class Wish(NamedTuple):
    """How many slices were wanted, from that time on (seconds since the epoch)."""

    at: float
    sizes: tuple[int, ...]
    spares: int

    @property
    def what(self) -> tuple[tuple[int, ...], int]:
        """Sizes and spares, which may be wished for again later."""
        return self.sizes, self.spares


@dataclass(slots=True)
class Tally:
    """The end of the file, and the counts that would be slow to take."""

    #: State of every slice and host after the last change.
    states: dict[str, str] = field(default_factory=dict)
    #: Runs that are not over.
    runs: set[str] = field(default_factory=set)
    last_seq: int = 0
    #: The latest time of any change; seconds since the epoch, as all times here.
    latest_at: float = 0.0
    #: Replay begins after this change, from the picture that is kept of it; 0 = from nothing.
    base_seq: int = 0
    #: A time before this one cannot be looked up.
    base_at: float | None = None
    #: Changes that are not in the file any more, or never came into it.
    dropped: int = 0
    #: Numbers that no slice, and no run, has had.
    next_slice: int = 1
    next_run: int = 1
    #: Changes and hosts of attempts that are kept.
    size: int = 0
    #: Changes since the last picture, and the earliest time of one of them.
    unpictured: int = 0
    earliest_at: float = float("inf")
    #: The last one.
    wish: Wish | None = None

    def copy(self) -> Tally:
        """Return one that can be given up when a batch fails."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return Tally(**fields | {"states": dict(self.states), "runs": set(self.runs)})

    def add(self, connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
        """Take in changes that follow, and keep a picture of all states whenever enough has happened."""
        for change in changes:
            self.last_seq = change.seq
            self.latest_at = max(self.latest_at, change.at)
            self.earliest_at = min(self.earliest_at, change.at)
            self.unpictured += 1
            if change.kind == "run":
                self.next_run = max(self.next_run, _number(change.key) + 1)
                if change.ends_run:
                    self.runs.discard(change.key)
                else:
                    self.runs.add(change.key)
            elif change.trigger == "create" and change.kind == "slice":
                self.next_slice = max(self.next_slice, _number(change.key) + 1)
            if change.seq > self.base_seq and change.moves_slice:
                if change.dest is None:
                    self.states.pop(change.key, None)
                else:
                    self.states[change.key] = change.dest
            if self.unpictured >= max(_PICTURE_EVERY, len(self.states)):
                self._picture(connection)

    def _picture(self, connection: sqlite3.Connection) -> None:
        row = (self.last_seq, self.latest_at, self.earliest_at, json.dumps(self.states))
        connection.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)", row)
        self.unpictured, self.earliest_at = 0, float("inf")

    def save(self, connection: sqlite3.Connection) -> None:
        """Write the counts down."""
        rows = [(name, getattr(self, name)) for name in (*_COUNTS, "latest_at", "base_at")]
        connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    @classmethod
    def load(cls, connection: sqlite3.Connection) -> Tally:
        """Read a file's counts, and follow its changes from the last picture to the end."""
        facts = facts_of(connection)
        tally = cls(latest_at=facts.get("latest_at") or 0.0, base_at=facts.get("base_at"))
        for name in _COUNTS:
            setattr(tally, name, int(facts.get(name) or getattr(tally, name)))
        going_on = connection.execute("SELECT owner FROM stories WHERE kind = 'run' AND over_seq IS NULL")
        tally.runs = {row[0] for row in going_on}
        (tally.size,) = connection.execute("SELECT coalesce(sum(size), 0) FROM stories").fetchone()
        row = connection.execute("SELECT seq, states FROM pictures ORDER BY seq DESC LIMIT 1").fetchone() or (0, "{}")
        later = _changes(connection, row[0])
        tally.states = follow(json.loads(row[1]), later)
        tally.unpictured = len(later)
        tally.earliest_at = min((change.at for change in later), default=float("inf"))
        tally.wish = next(reversed(read_wishes(connection)), None)
        return tally


def read_wishes(connection: sqlite3.Connection) -> tuple[Wish, ...]:
    """Read the wishes of a file, oldest first."""
    rows = connection.execute("SELECT at, sizes, spares FROM wishes ORDER BY number")
    return tuple(Wish(at, tuple(json.loads(sizes)), spares) for at, sizes, spares in rows)


def facts_of(connection: sqlite3.Connection) -> dict[str, float | None]:
    """Return the counts of a file by name."""
    return dict(connection.execute("SELECT name, value FROM facts").fetchall())


def _changes(connection: sqlite3.Connection, seq: int) -> list[Change]:
    rows = connection.execute(f"SELECT {CHANGE} FROM changes WHERE seq > ? ORDER BY seq", (seq,))
    return [Change(*row) for row in rows]


def _number(key: str) -> int:
    """Return the number at the end of a name, 0 if there is none."""
    digits = key.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0
