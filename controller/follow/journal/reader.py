"""Read a journal: the questions of a history, asked of the file, also while it is written."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from sliceform.controller.errors import JournalDamagedError
from sliceform.controller.follow.journal.lock import is_held, lock_path
from sliceform.controller.follow.journal.rows import read_attempts
from sliceform.controller.follow.journal.schema import CHANGE, connect, told, transaction
from sliceform.controller.follow.journal.tally import Wish, facts_of, read_wishes
from sliceform.states import AttemptRecord, Change, ForgottenError, HistoryQueries, Selection, Story
from sliceform.states.history.changes import follow


class Driver(NamedTuple):
    """A process that wrote the journal. Times in seconds since the epoch."""

    #: The fleet's name, or the one that was made up.
    label: str
    #: Unique to the controller object.
    incarnation: str
    #: What every slice looked like, as text.
    shape: str
    host: str
    pid: int
    #: The number of its first change.
    first_seq: int
    started_at: float
    #: None if it did not close: it still runs, or it was killed.
    closed_at: float | None


class _Attempts:
    """The attempts of runs, in the file."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def of(self, run: str | None = None) -> tuple[AttemptRecord, ...]:
        """Give the attempts of this run, or of all, in the order in which they began."""
        with self._journal.reading() as connection:
            return read_attempts(connection) if run is None else read_attempts(connection, "run = ?", (run,))


class Journal(HistoryQueries):
    """A journal that was opened to be read; a context manager. Its methods may be called on any thread.

    All of them raise `JournalError` when the file cannot be read any more.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use `open_journal`."""
        self.path = path
        self._writers_lock = lock_path(path)
        self._connection = connection
        self._lock = threading.RLock()
        self.attempts = _Attempts(self)

    def close(self) -> None:
        """Let go of the file; harmless the second time."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read within one state of the file, whatever is written meanwhile; may be nested."""
        with self._lock, told(self.path):
            if self._connection.in_transaction:
                yield self._connection
            else:
                with transaction(self._connection, "DEFERRED"):
                    yield self._connection

    # The questions of a history.

    def window(self) -> tuple[dict[str, str], Story]:
        """Give the states where replay begins, and all changes after that; both from the file's beginning if it can."""
        with self.reading() as connection:
            base_seq = self._fact("base_seq")
            row = connection.execute("SELECT states FROM pictures WHERE seq = ?", (base_seq,)).fetchone()
            base = json.loads(row[0]) if base_seq and row else {}
            return base, self._changes("seq > ? ORDER BY seq", (base_seq,))

    def story(self, *keys: str) -> Story:
        """Tell what happened to these records; a slice's story includes that of its hosts."""
        owners = json.dumps(sorted({key for name in keys for key in (name, name.rpartition("/")[0]) if key}))
        changes = self._changes(
            "owner IN (SELECT value FROM json_each(?)) ORDER BY seq",
            (owners,),
        )
        wanted = frozenset(keys)
        return Story(change for change in changes if change.key in wanted or change.owner in wanted)

    def since(self, seq: int) -> Story:
        """Give the changes that are kept and numbered above `seq`."""
        return self._changes("seq > ? ORDER BY seq", (seq,))

    def at(self, time: float) -> dict[str, str]:
        """Give the state of every slice and host at that time, in seconds since the epoch.

        Raises:
            ForgottenError: changes before that time were dropped.

        """
        with self.reading() as connection:
            base_at = facts_of(connection).get("base_at")
            if base_at is not None and time < base_at:
                raise ForgottenError(
                    f"{self.path} can no longer tell the states at {time:.3f}: of the changes up to {base_at:.3f},"
                    f" {self.dropped} were dropped; keep more with Settings(journal_limit=...)"
                )
            start, states = connection.execute(
                "SELECT seq, states FROM pictures WHERE latest_at <= ? ORDER BY seq DESC LIMIT 1", (time,)
            ).fetchone() or (0, "{}")
            # A clock that was set back makes later changes earlier: all up to the last one of that time are followed.
            newest, end = connection.execute(
                "SELECT max(seq), max(seq) FILTER (WHERE seq > ? AND earliest_at <= ?) FROM pictures", (start, time)
            ).fetchone()
            (tail,) = connection.execute(
                "SELECT max(seq) FROM changes WHERE seq > ? AND at <= ?", (newest or 0, time)
            ).fetchone()
            later = self._changes("seq > ? AND seq <= ? AND at <= ? ORDER BY seq", (start, tail or end or start, time))
            return follow(json.loads(states), later)

    @property
    def last_seq(self) -> int:
        """The number of the newest change; 0 if there is none."""
        return self._fact("last_seq")

    @property
    def dropped(self) -> int:
        """How many changes were dropped, or never came into the file."""
        return self._fact("dropped")

    def __len__(self) -> int:
        """Count the changes that are kept."""
        with self.reading() as connection:
            count: int = connection.execute("SELECT count(*) FROM changes").fetchone()[0]
            return count

    def __iter__(self) -> Iterator[Change]:
        """Go through the changes that are kept at this moment, oldest first."""
        return iter(self.since(0))

    def _select(self, selection: Selection, limit: int | None) -> Story:
        owner = selection.key and (selection.key.rpartition("/")[0] or selection.key)
        tests: list[tuple[str, Any]] = [
            ("reason = ?", selection.reason),
            ("dest = ?", selection.state),
            ("kind = ?", selection.kind),
            ("owner = ?", owner),
            ("at >= ?", selection.after),
            ("at < ?", selection.before),
            ("key = ?", selection.key if selection.key != owner else None),
        ]
        wanted = [(test, value) for test, value in tests if value is not None]
        where = " AND ".join(test for test, _ in wanted) or "1"
        values = [*(value for _, value in wanted), -1 if limit is None else limit]
        return Story(reversed(self._changes(f"{where} ORDER BY seq DESC LIMIT ?", values)))

    def creations(self) -> Mapping[str, str | None]:
        """Give every slice whose entry is kept, in order, with the one that it replaced."""
        with self.reading() as connection:
            return dict(
                connection.execute(
                    "SELECT key, cause FROM changes WHERE trigger = 'create' AND kind = 'slice' ORDER BY seq"
                )
            )

    def _creations(self) -> Mapping[str, str | None]:
        return self.creations()

    # What a file knows beside.

    def names(self) -> tuple[str, ...]:
        """Give the ids of all slices and runs that are kept, in the order in which they came last."""
        with self.reading() as connection:
            return tuple(row[0] for row in connection.execute("SELECT owner FROM stories ORDER BY last_seq"))

    def span(self) -> tuple[float, float] | None:
        """Give the times of the earliest and of the latest change that are kept; None without any."""
        with self.reading() as connection:
            row = connection.execute("SELECT min(at), max(at) FROM changes").fetchone()
            return None if row[0] is None else row

    def drivers(self) -> tuple[Driver, ...]:
        """Give the processes that wrote it, oldest first."""
        columns = ", ".join(Driver._fields)
        with self.reading() as connection:
            return tuple(Driver(*row) for row in connection.execute(f"SELECT {columns} FROM drivers ORDER BY number"))

    def wishes(self) -> tuple[Wish, ...]:
        """Give the sizes that were wanted, oldest first."""
        with self.reading() as connection:
            return read_wishes(connection)

    def writing(self) -> str:
        """Say how it stands with the last driver: ``running``, ``closed``, ``gone`` (killed), or ``none``."""
        drivers = self.drivers()
        if not drivers:
            return "none"
        if drivers[-1].closed_at is not None:
            return "closed"
        return "running" if is_held(self._writers_lock) else "gone"

    def check_file(self) -> None:
        """Read every page of the file.

        Raises:
            JournalDamagedError: one cannot be read, or contradicts another.

        """
        with self.reading() as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
        if faults != ["ok"]:
            raise JournalDamagedError(f"{self.path} is damaged: {'; '.join(faults)}")

    def _changes(self, where: str, values: Any) -> Story:
        with self.reading() as connection:
            return Story(
                Change(*row) for row in connection.execute(f"SELECT {CHANGE} FROM changes WHERE {where}", values)
            )

    def _fact(self, name: str) -> int:
        with self.reading() as connection:
            return int(facts_of(connection).get(name) or 0)


def open_journal(path: str | os.PathLike[str]) -> Journal:
    """Open a journal to be read; its writer, if there is one, goes on undisturbed.

    Raises:
        JournalMissingError: there is no such file.
        JournalForeignError: it is something else.
        JournalNewerError: a newer sliceform wrote it.
        JournalDamagedError: it cannot be read.

    """
    path = Path(path)
    return Journal(path, connect(path, write=False))
