"""The data of a timeline: all changes in columns, with every text once, so that 100,000 of them stay small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sliceform.states import AttemptRecord, Change, Reason, SliceState, Story
from sliceform.states.history.queries import HistoryQueries


class Texts:
    """Every text once; 0 is no text."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.all: list[str] = [""]
        self._numbers = {"": 0}

    def number(self, text: str | None) -> int:
        """Return the number of a text, and keep it if it is new."""
        text = text or ""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self.all)
            self.all.append(text)
        return number


def timeline_data(source: HistoryQueries, *, title: str, now: float | None = None) -> dict[str, Any]:
    """Return what the page draws, ready for JSON.

    Args:
        source: the history, in memory or in a file.
        title: shown above the timeline.
        now: up to when what has not ended is drawn, epoch seconds; by default the time of the newest change.

    """
    # Asked first: what comes meanwhile is in the window, and must not be skipped by the news.
    last = source.last_seq
    base, changes = source.window()
    return {
        "title": title,
        "dropped": source.dropped,
        "now": None if now is None else round(now * 1000),
        "base": base,
        **columns(changes, last),
        "attempts": [attempt_row(attempt) for attempt in source.attempts.of()],
        "states": list(SliceState),
        "reasons": {reason.value: reason.doc for reason in Reason},
    }


def columns(changes: Iterable[Change], last_seq: int) -> dict[str, Any]:
    """Return changes column by column.

    `seq` is the number of the last one, `last_seq` if there is none. `at` is in milliseconds: the first since the
    epoch, every other since the one before it. All else are numbers of `texts`.
    """
    texts = Texts()
    rows = list(changes)
    numbers = texts.number
    at, last = [], 0
    for row in rows:
        millis = round(row.at * 1000)
        at.append(millis - last)
        last = millis
    return {
        "seq": rows[-1].seq if rows else last_seq,
        "at": at,
        "kind": [numbers(row.kind) for row in rows],
        "key": [numbers(row.key) for row in rows],
        "from": [numbers(row.source) for row in rows],
        "to": [numbers(row.dest) for row in rows],
        "trigger": [numbers(row.trigger) for row in rows],
        "reason": [numbers(row.reason) for row in rows],
        "detail": [numbers(row.detail) for row in rows],
        "cause": [numbers(row.cause) for row in rows],
        "texts": texts.all,
    }


def attempt_row(attempt: AttemptRecord) -> Mapping[str, Any]:
    """Return one attempt as the page reads it; times in milliseconds since the epoch."""
    return {
        "run": attempt.run,
        "number": attempt.number,
        "slices": attempt.slices,
        "began": round(attempt.started_at * 1000),
        "ended": None if attempt.ended_at is None else round(attempt.ended_at * 1000),
        "outcome": attempt.outcome,
        "detail": attempt.detail,
        "hosts": [[host.host, host.outcome or "", host.detail] for host in attempt.hosts],
    }


def news(source: HistoryQueries, since: int, *, now: float) -> dict[str, Any]:
    """Return the changes numbered above `since`, with the attempts that they tell of, for the model of the page.

    `since` is the time of the change of that number, None if it is not kept, by which the page sees whether this is
    still the history that it has. It sees by `seq` whether changes are missing.
    """
    last = source.last_seq
    changes = source.since(since - 1)
    known = [change for change in changes[:1] if change.seq == since]
    changes = Story(changes[len(known) :])
    runs = dict.fromkeys(change.owner for change in changes if change.kind in {"run", "attempt"})
    return {
        **columns(changes, last),
        "since": round(known[0].at * 1000) if known else None,
        "attempts": [attempt_row(attempt) for run in runs for attempt in source.attempts.of(run)],
        "now": round(now * 1000),
    }
