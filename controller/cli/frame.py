"""What `watch` keeps on a terminal: as much of a fleet as fits, first what is not ready, and what happened last."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sliceform.controller.cli import screen
from sliceform.controller.cli.fleet import fleet_view
from sliceform.controller.report.past import PastFleet, run_at, slices_at
from sliceform.states import Change, HistoryQueries, Reason, SliceState

if TYPE_CHECKING:
    from sliceform.controller.follow.journal.tally import Wish

T = TypeVar("T")

#: At most so many of the last changes are shown, and of the runs that are over.
_LAST = 10
_OVER = 5
#: The last changes take at most this part of the lines, and runs that part; slices have what is left.
_CHANGES_PART = 3
_RUNS_PART = 4
#: Slices are shown in the order of their states: first those that want to be looked at.
_ORDER = (
    SliceState.PREEMPTED,
    SliceState.DRAINING,
    SliceState.PENDING,
    SliceState.PLACED,
    SliceState.READY,
    SliceState.RUNNING,
)


class _Part(NamedTuple):
    """What is shown of a fleet on a terminal of that height."""

    height: int
    fleet: PastFleet
    more_runs: int


class Frame:
    """A fleet that is followed change by change; of its history it reads only what it shows."""

    def __init__(self, source: HistoryQueries) -> None:
        """Begin with what is there; `take` what comes after `seq`."""
        self._source = source
        self.seq = source.last_seq
        self._going_on: dict[str, None] = {}
        self._over: deque[str] = deque(maxlen=_OVER)
        self._over_count = 0
        self._last = deque((change for change in source.select(limit=_LAST) if change.seq <= self.seq), _LAST)
        self._part: _Part | None = None
        for note in source.select(kind="run"):
            if note.seq <= self.seq:
                self._file(note)

    def take(self, changes: Iterable[Change]) -> None:
        """Go on with changes that the history has, too."""
        for change in changes:
            self.seq = change.seq
            self._last.append(change)
            if change.kind == "run":
                self._file(change)
            self._part = None

    def draw(self, now: float, wish: Wish | None, said: str, height: int) -> Iterator[Any]:
        """Yield what to show on so many lines."""
        from rich.text import Text

        if self._part is None or self._part.height != height:
            self._part = self._read(height)
        fleet = self._part.fleet._replace(at=now, wish=wish)
        parts = [*fleet_view(fleet, said, cut=True)]
        if self._part.more_runs:
            parts.append(f"and {self._part.more_runs} more runs")
        parts += [screen.change_line(change) for change in self._newest(height)]
        for part in parts:
            text = Text(part) if isinstance(part, str) else part
            yield screen.one_line(text) if isinstance(text, Text) else text

    def _read(self, height: int) -> _Part:
        # Whatever this machine's clock says: the fleet's may be ahead of it.
        time = math.inf
        states = self._source.at(time)
        names = sorted((key for key in states if "/" not in key), key=lambda key: _ORDER.index(SliceState(states[key])))
        runs = [*self._over, *self._going_on]
        count = self._over_count + len(self._going_on)
        shown_runs = _newest(runs, _rows(count, height // _RUNS_PART))
        more_runs = count - len(shown_runs)
        # Without the first line, the last one, where the cursor stands, and those of runs and changes.
        lines = height - 2 - len(self._newest(height)) - bool(shown_runs) - len(shown_runs) - bool(more_runs)
        slices = slices_at(self._source, states, names[: _rows(len(names), lines)], time)
        stories = tuple(run_at(self._source, key, time) for key in shown_runs)
        counts = dict(Counter(states[name] for name in names))
        return _Part(height, PastFleet(time, counts, None, slices, stories), more_runs)

    def _newest(self, height: int) -> list[Change]:
        return _newest(self._last, height // _CHANGES_PART)

    def _file(self, note: Change) -> None:
        if note.reason == Reason.RUN_FINISHED:
            self._going_on.pop(note.key, None)
            self._over.append(note.key)
            self._over_count += 1
        else:
            self._going_on[note.key] = None


def _rows(count: int, lines: int) -> int:
    """Say how many of so many rows fit below the heads of columns, with a line that counts the others."""
    return count if count < lines else max(0, lines - 2)


def _newest(rows: Iterable[T], count: int) -> list[T]:
    return list(rows)[-count:] if count else []
