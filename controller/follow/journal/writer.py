"""Write the journal of one fleet: take over what is there, add batches, keep it within its limit, close it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from sliceform.controller.errors import JournalError, JournalInUseError, JournalMissingError
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.journal.lock import WriterLock
from sliceform.controller.follow.journal.recover import closing
from sliceform.controller.follow.journal.rows import put_attempt, read_attempts, read_work
from sliceform.controller.follow.journal.schema import check_place, connect, told, transaction
from sliceform.controller.follow.journal.tally import Tally, Wish, facts_of
from sliceform.controller.follow.journal.trim import trim
from sliceform.states import AttemptRecord, Change, History

log = structlog.get_logger(__name__)

#: So many changes of a batch are written at once: readers see the first ones while the last are being written.
_PART = 2000
#: At least so many changes may be dropped with one part; more with a larger one.
_TRIM = 2000
#: How many drivers, and how many wishes, are remembered.
_DRIVERS = 1000
_WISHES = 10_000
#: How long closing may wait for a batch that is being written, seconds.
_CLOSE_S = 2.0


class Resumed(NamedTuple):
    """Where the numbers of a new driver go on."""

    last_seq: int
    #: The latest time of a change, seconds since the epoch.
    latest_at: float
    next_slice: int
    next_run: int
    #: In the order in which they began.
    attempts: tuple[AttemptRecord, ...]


class JournalWriter:
    """The one that writes a journal. Opened and closed by the fleet's owner, written by a follower's thread."""

    def __init__(self, path: Path, history: History, *, limit: int, wish: Callable[[], Wish]) -> None:
        """Take what is needed; the file is not touched yet.

        Args:
            path: of the file.
            history: that is followed; asked where it begins when it forgot changes before they were written.
            limit: how many changes to keep.
            wish: tells the sizes and spares that are wanted now, and since when.

        """
        self.path = path
        self._history = history
        self._limit = limit
        self._wish = wish
        self._lock = WriterLock(path)
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        #: The file that was opened, whatever is at its path later, and the number of this driver in it.
        self._file: os.stat_result | None = None
        self._driver = 0
        self._tally = Tally()
        self._over_limit = False

    def open(self, label: str, incarnation: str, shape: str, at: float) -> Resumed:
        """Take the file over for a new driver, and close what the last one left open.

        Raises:
            JournalError: it cannot be used, see its subclasses; it was not changed.

        """
        check_place(self.path, write=True)
        self._lock.take(f"{label}/{incarnation}, process {os.getpid()} on {socket.gethostname()}")
        try:
            connection = connect(self.path, write=True)
            try:
                self._file = self.path.stat()
                with told(self.path), transaction(connection, "IMMEDIATE"):
                    resumed = self._take_over(connection, label, incarnation, shape, at)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        self._connection = connection
        return resumed

    def write(self, batch: Batch) -> None:
        """Write what a follower hands over, a large batch in parts; each of them all or nothing.

        Raises:
            JournalMissingError: the file was deleted, or moved away.
            JournalInUseError: another fleet writes it, or another file is in its place.
            JournalError: the file cannot be written now.

        """
        with self._guard:
            if self._connection is None:
                raise JournalError(f"{self.path} is closed")
            self._check_place()
            # What is left of a batch that failed before.
            changes = [change for change in batch.changes if change.seq > self._tally.last_seq]
            # Attempts first: a run whose end is told has all of them.
            self._write(self._connection, changes[:_PART], batch.attempts)
            for begin in range(_PART, len(changes), _PART):
                self._write(self._connection, changes[begin : begin + _PART], ())
            size = self._tally.size
        if size > self._limit and not self._over_limit:
            log.warning("journal_over_limit", journal=str(self.path), limit=self._limit, size=size)
        self._over_limit = size > self._limit

    def close(self, at: float) -> None:
        """Note that the driver closed, and let go of the file; what cannot be written any more is logged."""
        held = self._guard.acquire(timeout=_CLOSE_S)
        if not held:
            # Its thread hangs in a write: the file is as it would be after a kill.
            log.warning("journal_left_open", journal=str(self.path))
            return
        try:
            if self._connection is None:
                return
            try:
                self._check_place()
                self._note_close(self._connection, at)
            except (JournalError, sqlite3.Error) as error:
                log.warning("journal_not_closed", journal=str(self.path), cause=repr(error))
            self._connection.close()
            self._connection = None
            self._lock.release()
        finally:
            self._guard.release()

    def _take_over(
        self, connection: sqlite3.Connection, label: str, incarnation: str, shape: str, at: float
    ) -> Resumed:
        tally = Tally.load(connection)
        runs = sorted(tally.runs)
        left = read_attempts(connection, "outcome IS NULL")
        if tally.states or runs or left:
            detail = _last_driver(connection, tally.latest_at)
            states = tally.states | read_work(connection, [*runs, *(attempt.run for attempt in left)])
            changes, ended = closing(states, runs, left, last_seq=tally.last_seq, at=at, detail=detail)
            self._put(connection, tally, changes, ended)
            log.info("journal_taken_over", journal=str(self.path), closed=len(changes), cause=detail)
        (self._driver,) = connection.execute(
            "INSERT INTO drivers (label, incarnation, shape, host, pid, first_seq, started_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
            (label, incarnation, shape, socket.gethostname(), os.getpid(), tally.last_seq + 1, at),
        ).fetchone()
        connection.execute("DELETE FROM drivers WHERE number <= (SELECT max(number) FROM drivers) - ?", (_DRIVERS,))
        self._put_wish(connection, tally)
        tally.save(connection)
        self._tally = tally
        return Resumed(tally.last_seq, tally.latest_at, tally.next_slice, tally.next_run, read_attempts(connection))

    def _write(
        self, connection: sqlite3.Connection, changes: Sequence[Change], attempts: Sequence[AttemptRecord]
    ) -> None:
        tally = self._tally.copy()
        with told(self.path), transaction(connection, "IMMEDIATE"):
            self._check_writer(connection)
            missed = changes[0].seq - tally.last_seq - 1 if changes else 0
            if missed:
                self._skip(connection, tally, missed)
            self._put(connection, tally, changes, attempts)
            self._put_wish(connection, tally)
            if tally.size > self._limit:
                trim(connection, tally, self._limit, max(_TRIM, 2 * len(changes)))
            tally.save(connection)
        self._tally = tally

    def _check_place(self) -> None:
        """See that the file is still where it was: what is written into one that was deleted, nobody can read."""
        try:
            there = self.path.stat()
        except OSError as error:
            raise JournalMissingError(
                f"{self.path} was deleted or moved away while it was written ({error.strerror}): move it back,"
                " or go on with a new fleet"
            ) from error
        if self._file is None or not os.path.samestat(there, self._file):
            raise JournalInUseError(f"{self.path} was replaced by another file while it was written: move that away")

    def _check_writer(self, connection: sqlite3.Connection) -> None:
        """See that nobody else wrote since the last batch: whoever deletes the lock file by hand lets them."""
        row = connection.execute("SELECT number, label, pid, host FROM drivers ORDER BY number DESC LIMIT 1").fetchone()
        last_seq = facts_of(connection).get("last_seq")
        if row is None or row[0] != self._driver or last_seq != self._tally.last_seq:
            _, label, pid, host = row or (0, "unknown", 0, "unknown")
            raise JournalInUseError(
                f"{self.path} is written by another fleet, too ({label}, process {pid} on {host}): close one of the two"
            )

    def _put(
        self,
        connection: sqlite3.Connection,
        tally: Tally,
        changes: Sequence[Change],
        attempts: Sequence[AttemptRecord],
    ) -> None:
        rows: list[tuple[Any, ...]] = []
        stories: dict[str, _Part] = {}
        for change in changes:
            owner = change.owner
            rows.append((*change, owner))
            part = stories.get(owner)
            if part is None:
                part = stories[owner] = _Part(_STORY_OF.get(change.kind, change.kind))
            part.take(change)
        connection.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        for attempt in attempts:
            if put_attempt(connection, attempt):
                stories.setdefault(attempt.run, _Part("run")).size += len(attempt.hosts)
        connection.executemany(
            "INSERT INTO stories VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (owner) DO UPDATE SET"
            " last_seq = max(last_seq, excluded.last_seq), latest_at = max(latest_at, excluded.latest_at),"
            " size = size + excluded.size, over_seq = coalesce(excluded.over_seq, over_seq)",
            [
                (owner, part.kind, part.last_seq, part.latest_at, part.size, part.over_seq)
                for owner, part in stories.items()
            ],
        )
        tally.size += sum(part.size for part in stories.values())
        tally.add(connection, changes)

    def _put_wish(self, connection: sqlite3.Connection, tally: Tally) -> None:
        wish = self._wish()
        if tally.wish is None or wish.what != tally.wish.what:
            tally.wish = wish
            row = (wish.at, json.dumps(wish.sizes), wish.spares)
            connection.execute("INSERT INTO wishes (at, sizes, spares) VALUES (?, ?, ?)", row)
            connection.execute("DELETE FROM wishes WHERE number <= (SELECT max(number) FROM wishes) - ?", (_WISHES,))

    def _skip(self, connection: sqlite3.Connection, tally: Tally, missed: int) -> None:
        """Go on after changes that were forgotten before they could be written, from what they led to."""
        base, kept = self._history.window()
        tally.base_seq = kept[0].seq - 1 if kept else self._history.last_seq
        # Asked after the window: should more have been forgotten meanwhile, more is refused than has to be.
        tally.base_at = max(tally.latest_at, self._history.forgotten_until or 0.0)
        tally.dropped += missed
        tally.states = base
        tally.unpictured, tally.earliest_at = 0, float("inf")
        row = (tally.base_seq, tally.base_at, tally.base_at, json.dumps(base))
        connection.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)", row)
        living = json.dumps([key for key in base if "/" not in key])
        connection.execute(
            "UPDATE stories SET over_seq = last_seq WHERE kind = 'slice' AND over_seq IS NULL"
            " AND owner NOT IN (SELECT value FROM json_each(?))",
            (living,),
        )
        log.error("journal_has_a_gap", journal=str(self.path), missed=missed)

    def _note_close(self, connection: sqlite3.Connection, at: float) -> None:
        connection.execute("UPDATE drivers SET closed_at = ? WHERE number = ?", (at, self._driver))
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            # A journal that is closed is one plain file, which can be copied, and read where nothing can be written.
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            log.info("journal_still_read", journal=str(self.path), cause=str(error))


#: Kinds of records whose changes are part of the story of another.
_STORY_OF = {"host": "slice", "attempt": "run"}


@dataclass(slots=True)
class _Part:
    """What one batch adds to a story."""

    kind: str
    last_seq: int = 0
    latest_at: float = 0.0
    size: int = 0
    over_seq: int | None = None

    def take(self, change: Change) -> None:
        self.last_seq = change.seq
        self.latest_at = max(self.latest_at, change.at)
        self.size += 1
        self.over_seq = change.seq if _ends(change) else self.over_seq


def _ends(change: Change) -> bool:
    """Whether a slice or a run is over with this change."""
    if change.kind == "slice":
        return change.dest is None and not change.is_note
    return change.ends_run


def _last_driver(connection: sqlite3.Connection, latest_at: float) -> str:
    row = connection.execute("SELECT label, pid, host FROM drivers ORDER BY number DESC LIMIT 1").fetchone()
    label, pid, host = row or ("unknown", 0, "unknown")
    when = datetime.fromtimestamp(latest_at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"the driver of {label} (process {pid} on {host}) recorded nothing after {when} UTC"
