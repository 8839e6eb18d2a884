"""The fleet as it was at a time, from its journal."""

from __future__ import annotations

from typing import Any, NamedTuple

from sliceform.controller.journal.reader import Journal
from sliceform.controller.journal.tally import Wish
from sliceform.states import AttemptRecord, RunStory
from sliceform.states.losses import place_of
from sliceform.states.runs import tell_run


class PastSlice(NamedTuple):
    """One slice at that time. Times in seconds since the epoch."""

    id: str
    state: str
    since: float
    place: str | None
    reason: str
    detail: str
    replaces: str | None
    #: State of each host by rank.
    hosts: tuple[str, ...]


class PastFleet(NamedTuple):
    """The fleet at that time."""

    at: float
    #: Slices by state.
    counts: dict[str, int]
    #: What was wanted; None if that is not known.
    wish: Wish | None
    slices: tuple[PastSlice, ...]
    #: Runs that had been submitted, as they stood.
    runs: tuple[RunStory, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give everything by name, ready for JSON."""
        return self._asdict() | {
            "wish": self.wish and self.wish._asdict(),
            "slices": [row._asdict() for row in self.slices],
            "runs": [run.as_dict() for run in self.runs],
        }


def fleet_at(journal: Journal, time: float) -> PastFleet:
    """Return the fleet as it was at that time, seconds since the epoch.

    Raises:
        ForgottenError: the journal does not reach back so far.

    """
    with journal.reading():
        states = journal.at(time)
        slices = tuple(_slice(journal, key, states, time) for key in states if "/" not in key)
        wish = next((wish for wish in reversed(journal.wishes()) if wish.at <= time), None)
        notes = journal.select(kind="run", before=time)
        runs = tuple(_run(journal, key, time) for key in dict.fromkeys(note.key for note in notes))
    counts: dict[str, int] = {}
    for row in slices:
        counts[row.state] = counts.get(row.state, 0) + 1
    return PastFleet(time, counts, wish, slices, runs)


def _slice(journal: Journal, key: str, states: dict[str, str], time: float) -> PastSlice:
    moves = [change for change in journal.story(key) if change.key == key and not change.is_note and change.at <= time]
    place = next((place_of(change) for change in reversed(moves) if change.trigger == "place"), None)
    hosts = tuple(state for host, state in states.items() if host.rpartition("/")[0] == key)
    last = moves[-1]
    return PastSlice(key, states[key], last.at, place, last.reason, last.detail, moves[0].cause, hosts)


def _run(journal: Journal, key: str, time: float) -> RunStory:
    notes = [note for note in journal.story(key) if note.at <= time]
    attempts = tuple(_attempt(row, time) for row in journal.attempts.of(key) if row.started_at <= time)
    members = journal.story(*{member for row in attempts for member in row.slices})
    return tell_run(key, notes, attempts, [change for change in members if change.at <= time])


def _attempt(row: AttemptRecord, time: float) -> AttemptRecord:
    """Return an attempt as it stood at that time."""
    if row.ended_at is None or row.ended_at <= time:
        return row
    hosts = tuple(host._replace(outcome=None, detail="") for host in row.hosts)
    return row._replace(ended_at=None, outcome=None, detail="", hosts=hosts)
