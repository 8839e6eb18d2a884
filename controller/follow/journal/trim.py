"""What is dropped from a journal that has become too long: whole stories of what is gone, the oldest first."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from sliceform.controller.follow.journal.tally import Tally


def trim(connection: sqlite3.Connection, tally: Tally, limit: int, at_most: int) -> None:
    """Drop stories of slices and runs that are over until `limit` is kept, about `at_most` changes in one go.

    What lives is never dropped, so that replay needs no other beginning: a story that is gone as a whole leaves no
    trace in the states after it. Nor are slices that took part in a run that is not over: its pauses are told by them.
    """
    needed = _members(connection, tally.runs)
    rows = connection.execute(
        "SELECT owner, kind, latest_at, over_seq, size FROM stories WHERE over_seq IS NOT NULL ORDER BY over_seq"
    )
    chosen: list[tuple[str, str, float, int, int]] = []
    kept, gone = tally.size, 0
    for row in rows:
        if kept <= limit or gone >= at_most:
            break
        if row[0] not in needed:
            chosen.append(row)
            kept -= row[4]
            gone += row[4]
    rows.close()
    if not chosen:
        return
    for owner, kind, latest_at, _, _ in chosen:
        tally.dropped += connection.execute("DELETE FROM changes WHERE owner = ?", (owner,)).rowcount
        connection.execute("DELETE FROM stories WHERE owner = ?", (owner,))
        if kind == "run":
            connection.execute("DELETE FROM attempts WHERE run = ?", (owner,))
        else:
            tally.base_at = max(tally.base_at or latest_at, latest_at)
    tally.size = kept
    _clean(connection, tally.base_seq, chosen[-1][3], frozenset(row[0] for row in chosen))


def _members(connection: sqlite3.Connection, runs: Iterable[str]) -> frozenset[str]:
    """Return the slices that took part in these runs."""
    rows = connection.execute(
        "SELECT slices FROM attempts WHERE run IN (SELECT value FROM json_each(?))", (json.dumps(list(runs)),)
    )
    return frozenset(name for row in rows for name in json.loads(row[0]))


def _clean(connection: sqlite3.Connection, base_seq: int, cut: int, owners: frozenset[str]) -> None:
    """Take what was dropped out of the pictures that are still of use: the newest before the cut, and the base."""
    (last,) = connection.execute("SELECT max(seq) FROM pictures WHERE seq <= ?", (cut,)).fetchone()
    if last is None:
        return
    before = (base_seq, last)
    (earliest,) = connection.execute("SELECT min(earliest_at) FROM pictures WHERE seq <= ?", (last,)).fetchone()
    connection.execute("UPDATE pictures SET earliest_at = ? WHERE seq = ?", (earliest, last))
    connection.execute("DELETE FROM pictures WHERE seq != ? AND seq < ?", before)
    for seq, text in connection.execute("SELECT seq, states FROM pictures WHERE seq IN (?, ?)", before).fetchall():
        states = {key: state for key, state in json.loads(text).items() if key.rpartition("/")[0] not in owners}
        states = {key: state for key, state in states.items() if key not in owners}
        connection.execute("UPDATE pictures SET states = ? WHERE seq = ?", (json.dumps(states), seq))
