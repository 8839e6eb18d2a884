"""The form of the file: its tables, its marks, and how a connection to it is made and checked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sliceform.controller.errors import (
    JournalDamagedError,
    JournalError,
    JournalForeignError,
    JournalMissingError,
    JournalNewerError,
)

#: Marks the file as a journal: "slfj" in ASCII, in SQLite's own field for it.
APPLICATION_ID = 0x736C666A
#: The form of the tables below.
VERSION = 1
#: How long to wait for somebody else's lock on the file, seconds.
BUSY_S = 2.0
#: Names of the columns of a change, in the order of the fields of `Change`.
CHANGE = "seq, tick, at, kind, key, trigger, source, dest, reason, detail, cause"

#: `owner` of a change is the slice of a host, else the record itself: a story is one range of an index.
#: `pictures` are the states of all records after some changes, so that a time can be looked up without following all
#: changes before it; `latest_at` is the latest time of any change up to there, `earliest_at` the earliest since the
#: picture before. `stories` counts what belongs to each slice and run; `over_seq` is set when it is gone.
_TABLES = """
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY, tick INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    trigger TEXT, source TEXT, dest TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL, cause TEXT, owner TEXT NOT NULL
);
CREATE INDEX changes_by_owner ON changes (owner);
CREATE INDEX changes_by_reason ON changes (reason);
CREATE INDEX changes_by_time ON changes (at);
CREATE INDEX creations ON changes (key, cause) WHERE trigger = 'create' AND kind = 'slice';
CREATE TABLE pictures (
    seq INTEGER PRIMARY KEY, latest_at REAL NOT NULL, earliest_at REAL NOT NULL, states TEXT NOT NULL
);
CREATE TABLE stories (
    owner TEXT PRIMARY KEY, kind TEXT NOT NULL, last_seq INTEGER NOT NULL, latest_at REAL NOT NULL,
    size INTEGER NOT NULL, over_seq INTEGER
) WITHOUT ROWID;
CREATE INDEX stories_by_end ON stories (over_seq) WHERE over_seq IS NOT NULL;
CREATE TABLE attempts (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, run TEXT NOT NULL, attempt INTEGER NOT NULL,
    slices TEXT NOT NULL, hosts TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL, outcome TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX attempts_by_run ON attempts (run);
CREATE TABLE drivers (
    number INTEGER PRIMARY KEY, label TEXT NOT NULL, incarnation TEXT NOT NULL, shape TEXT NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, first_seq INTEGER NOT NULL, started_at REAL NOT NULL, closed_at REAL
);
CREATE TABLE wishes (number INTEGER PRIMARY KEY, at REAL NOT NULL, sizes TEXT NOT NULL, spares INTEGER NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL) WITHOUT ROWID;
"""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into those of the journal, with what to do.

    Raises:
        JournalError: the file cannot be used.

    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if not hasattr(error, "sqlite_errorcode"):
            # Not SQLite's: Python cannot decode a text.
            raise _damaged(path, error) from error
        code = error.sqlite_errorcode & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            message = f"{path} is locked by another program for more than {BUSY_S:g} s: end that, then try again"
            raise JournalError(message) from error
        wal = path.with_name(path.name + "-wal")
        if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY} and wal.exists():
            raise JournalError(
                f"{path} was not closed, and cannot be read where nothing can be written ({error}): copy it, with its"
                " -wal file, to a folder that can be written"
            ) from error
        raise JournalError(f"{path} cannot be used: {error}") from error
    except sqlite3.ProgrammingError as error:
        raise JournalError(f"{path} was closed") from error
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise JournalForeignError(f"{path} is not a journal: it is no SQLite file") from error
        raise _damaged(path, error) from error
    except ValueError as error:
        # What is read is no UTF-8 or no JSON, though SQLite found nothing wrong.
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> JournalDamagedError:
    message = f"{path} is damaged: {error}; move it away, and keep it if you want to save what can be read"
    return JournalDamagedError(message)


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open the file and see that it is a journal; to write, make it one if it is new. Never overwrites anything.

    Raises:
        JournalError: it cannot be used, see its subclasses.

    """
    check_place(path, write=write)
    with told(path):
        mode = "rwc" if write else "ro"
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={mode}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _look(connection, path, write=write)
        except BaseException:
            connection.close()
            raise
    return connection


def check_place(path: Path, *, write: bool) -> None:
    """See that there is a file or, to write, that there can be one.

    Raises:
        JournalMissingError: there is not.
        JournalError: nobody can tell, as when its folder may not be entered.

    """
    needed = path.parent if write else path
    try:
        is_folder, exists = path.is_dir(), needed.exists()
    except OSError as error:
        raise JournalError(
            f"{path} cannot be looked at ({error.strerror}): give a path whose folders you may enter, and whose"
            " names are not too long"
        ) from error
    if is_folder:
        raise JournalMissingError(f"{path} is a folder: give the path of a journal's file")
    if not exists:
        raise JournalMissingError(f"{needed} does not exist: give the path of a journal's file")


def _look(connection: sqlite3.Connection, path: Path, *, write: bool) -> None:
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if mark == APPLICATION_ID and version > VERSION:
        raise JournalNewerError(
            f"{path} has form {version}, this sliceform knows forms up to {VERSION}: use the sliceform that wrote it"
        )
    if not write and not mark and not tables:
        raise JournalForeignError(f"{path} is empty: no fleet has written into it")
    if mark != APPLICATION_ID and (tables or mark):
        raise JournalForeignError(f"{path} is not a journal: it was made by another program, and is left as it is")
    if not write:
        return
    if mark == APPLICATION_ID:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise JournalDamagedError(f"{path} is damaged: {verdict}; move it away to begin a new one")
    # Commits reach the operating system, not the disk: they outlive this process, and a loss of power takes the last.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if mark != APPLICATION_ID:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES}; PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {VERSION}; COMMIT"
        )


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Do all of it or nothing; `kind` is that of SQLite's BEGIN."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
