"""How attempts are written into rows, and read from them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from sliceform.states import AttemptRecord, HostEnd

_COLUMNS = "key, run, attempt, slices, hosts, started_at, ended_at, outcome, detail"


def put_attempt(connection: sqlite3.Connection, row: AttemptRecord) -> bool:
    """Write an attempt as it stands; return whether it is new."""
    new = connection.execute("SELECT 1 FROM attempts WHERE key = ?", (row.key,)).fetchone() is None
    hosts = json.dumps(row.hosts)
    values = (row.key, row.run, row.number, json.dumps(row.slices), hosts, row.started_at, row.ended_at, row.outcome)
    connection.execute(
        f"INSERT INTO attempts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET hosts = excluded.hosts, ended_at = excluded.ended_at,"
        " outcome = excluded.outcome, detail = excluded.detail",
        (*values, row.detail),
    )
    return new


def read_work(connection: sqlite3.Connection, runs: Iterable[str]) -> dict[str, str]:
    """Return the state of each of these runs, and of their attempts, that has not left, by id."""
    rows = connection.execute(
        "SELECT key, dest FROM changes WHERE owner IN (SELECT value FROM json_each(?)) AND trigger IS NOT NULL"
        " ORDER BY seq",
        (json.dumps(list(runs)),),
    )
    return {key: state for key, state in dict(rows.fetchall()).items() if state is not None}


def read_attempts(
    connection: sqlite3.Connection, where: str = "1", values: Iterable[Any] = ()
) -> tuple[AttemptRecord, ...]:
    """Read the attempts for which this holds, in the order in which they began."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM attempts WHERE {where} ORDER BY number", tuple(values))
    return tuple(
        AttemptRecord(
            run, number, tuple(json.loads(slices)), tuple(HostEnd(*host) for host in json.loads(hosts)), *ending
        )
        for _, run, number, slices, hosts, *ending in rows
    )
