"""The fleet as it was at a time, from its journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sliceform.controller.follow.journal.reader import Journal
from sliceform.controller.follow.journal.tally import Wish
from sliceform.states import AttemptRecord, Change, HistoryQueries, RunStory
from sliceform.states.history.losses import place_of
from sliceform.states.history.run_stories import tell_runs


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
        slices = slices_at(journal, states, [key for key in states if "/" not in key], time)
        wish = next((wish for wish in reversed(journal.wishes()) if wish.at <= time), None)
        notes = journal.select(kind="run", before=time)
        runs = _tell(journal, notes, journal.attempts.of(), time)
    return PastFleet(time, dict(Counter(row.state for row in slices)), wish, slices, runs)


def slices_at(
    source: HistoryQueries, states: Mapping[str, str], names: Sequence[str], time: float
) -> tuple[PastSlice, ...]:
    """Return some slices of those that had these states at that time."""
    moves: dict[str, list[Change]] = {name: [] for name in names}
    # All in one question: to ask for each would go through a history in memory once a slice.
    for change in source.story(*names):
        if change.key in moves and not change.is_note and change.at <= time:
            moves[change.key].append(change)
    hosts: dict[str, list[str]] = {name: [] for name in names}
    for key, state in states.items():
        owner, _, rank = key.rpartition("/")
        if rank and owner in hosts:
            hosts[owner].append(state)
    return tuple(_slice(name, states[name], moves[name], hosts[name]) for name in names if moves[name])


def _slice(name: str, state: str, moves: Sequence[Change], hosts: Sequence[str]) -> PastSlice:
    place = next((place_of(change) for change in reversed(moves) if change.trigger == "place"), None)
    last = moves[-1]
    return PastSlice(name, state, last.at, place, last.reason, last.detail, moves[0].cause, tuple(hosts))


def run_at(source: HistoryQueries, key: str, time: float) -> RunStory:
    """Return a run as it stood at that time."""
    return _tell(source, source.select(key=key, kind="run"), source.attempts.of(key), time)[0]


def _tell(
    source: HistoryQueries, notes: Iterable[Change], attempts: Iterable[AttemptRecord], time: float
) -> tuple[RunStory, ...]:
    """Tell of the runs that these notes are about, as they stood at that time."""
    told = [note for note in notes if note.at <= time]
    names = {note.key for note in told}
    tried = [_attempt(row, time) for row in attempts if row.run in names and row.started_at <= time]
    return tell_runs(told, tried, lambda *slices: (row for row in source.story(*slices) if row.at <= time))


def _attempt(row: AttemptRecord, time: float) -> AttemptRecord:
    """Return an attempt as it stood at that time."""
    if row.ended_at is None or row.ended_at <= time:
        return row
    hosts = tuple(host._replace(outcome=None, detail="") for host in row.hosts)
    return row._replace(ended_at=None, outcome=None, detail="", hosts=hosts)
