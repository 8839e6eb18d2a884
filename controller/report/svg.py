"""Draw a timeline as a plain SVG, for reports and pages that run no script."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import escape
from itertools import zip_longest

from sliceform.controller.report.page import style
from sliceform.states import AttemptRecord, Change, SliceState
from sliceform.states.history.durations import Stretch, stretches
from sliceform.states.history.queries import HistoryQueries

#: Those of the page in its light dress, by name.
_COLOURS: dict[str, str] = dict(re.findall(r"--([\w-]+): (#\w+);", style().partition("@media")[0]))
_INK, _MUTED, _GRID, _PAPER = (_COLOURS[name] for name in ("ink", "muted", "grid", "paper"))
_GUTTER, _ROW, _HOST, _TOP, _EDGE = 96, 26, 14, 64, 16
#: Seconds between two lines of the axis.
_STEPS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200),
    *(days * 86400 for days in (1, 7, 28, 364)),
)
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
#: So many rows are drawn: a picture of more cannot be read.
_ROWS = 200


def timeline_svg(source: HistoryQueries, *, title: str = "sliceform timeline", width: int = 1200) -> str:
    """Return a picture of the whole history: runs with their attempts, slices with their hosts.

    Args:
        source: the history, in memory or in a file.
        title: written above it.
        width: in pixels; the height follows from the number of rows, of which 200 are drawn, and at most 100 of runs.

    """
    return _Picture(source, title, width).draw()


class _Picture:
    def __init__(self, source: HistoryQueries, title: str, width: int) -> None:
        self._title = title
        self._width = width
        self._dropped = source.dropped
        base, changes = source.window()
        self._bars = stretches(base, changes)
        times = [change.at for change in changes]
        self._from = min(times, default=0.0)
        self._to = max([*times, self._from + 0.001])
        self._attempts: dict[str, list[AttemptRecord]] = {}
        for attempt in source.attempts.of():
            if attempt.ended_at is None or attempt.ended_at >= self._from:
                self._attempts.setdefault(attempt.run, []).append(attempt)
        self._parts: list[str] = []

    def draw(self) -> str:
        y = _TOP
        runs = list(self._attempts)[: _ROWS // 2]
        for run in runs:
            self._label(run, y, _ROW, bold=True)
            for attempt in self._attempts[run]:
                self._attempt(attempt, y)
            y += _ROW
        keys = self._ordered()
        places: dict[str, int] = {}
        for key in keys[: _ROWS - len(runs)]:
            height = _HOST if "/" in key else _ROW
            places[key] = y
            self._label(f"host {key.rpartition('/')[2]}" if "/" in key else key, y, height, bold=False)
            self._record(self._bars[key], y, height, named="/" not in key)
            y += height
        for key, top in places.items():
            self._link(key, top, places)
        left_out = len(self._attempts) + len(keys) - len(runs) - len(places)
        if left_out:
            self._text(12, y + _HOST, f"and {left_out} more", _MUTED, 11)
            y += 2 * _HOST
        return self._frame(y + _EDGE)

    def _ordered(self) -> list[str]:
        """Give slices, each with its hosts after it."""
        hosts: dict[str, list[str]] = {key: [] for key in self._bars if "/" not in key}
        for key in self._bars:
            if "/" in key:
                hosts.get(key.rpartition("/")[0], []).append(key)
        return [key for one, own in hosts.items() for key in (one, *own)]

    def _x(self, at: float) -> float:
        room = self._width - _GUTTER - _EDGE
        return _GUTTER + (min(max(at, self._from), self._to) - self._from) / (self._to - self._from) * room

    def _label(self, text: str, y: float, height: float, *, bold: bool) -> None:
        small = height == _HOST
        x, size, colour = (28, 10, _MUTED) if small else (12, 13, _INK)
        self._text(x, y + height / 2, text, colour, size, bold=bold)

    def _attempt(self, attempt: AttemptRecord, y: float) -> None:
        left = self._x(attempt.started_at)
        right = self._x(self._to if attempt.ended_at is None else attempt.ended_at)
        outcome = attempt.outcome or "running"
        colour = _COLOURS.get(outcome, _COLOURS["running"])
        self._rect(left, y + 4, max(2.0, right - left), _ROW - 8, "none", stroke=colour)
        self._rect(left, y + 4, 4, _ROW - 8, colour)
        text = f"attempt {attempt.number}: {outcome}"
        if right - left > 8 + 6.2 * len(text):
            self._text(left + 9, y + _ROW / 2, text, _INK, 12)

    def _record(self, bars: list[Stretch], y: float, height: float, *, named: bool) -> None:
        edge = 3 if named else 2
        # Losses last: they are wider than they lasted, and the next bar would cover them.
        for bar in sorted(bars, key=lambda bar: bar.state == "preempted"):
            left, right = self._x(bar.begin), self._x(bar.end)
            least = 3.0 if bar.state == "preempted" else 1.0
            self._rect(left, y + edge, max(least, right - left), height - 2 * edge, _COLOURS[bar.state])
            if named and right - left > 8 + 6.4 * len(bar.state):
                self._text(left + 5, y + height / 2, bar.state, _COLOURS[f"on-{bar.state}"], 12)
        for bar, after in zip_longest(bars, bars[1:]):
            if named and bar.state == "preempted" and bar.change is not None:
                self._loss(bar.change, self._x((after or bar).end), y)

    def _loss(self, change: Change, end: float, y: float) -> None:
        """Mark a loss, and say beside what followed it why it came."""
        left = self._x(change.at)
        self._parts.append(f'<path d="M{left - 6:.1f} {y - 3}h12l-6 9z" fill="{_COLOURS["preempted"]}"/>')
        x = min(max(left + 6, end) + 4, self._width - 6.4 * len(change.reason))
        self._text(x, y + _ROW / 2, change.reason, _INK, 11, bold=True)

    def _link(self, key: str, top: int, places: dict[str, int]) -> None:
        """Draw the line from a slice to the one that replaced it."""
        first = self._bars[key][0].change if self._bars[key] else None
        old = places.get(first.cause or "") if first is not None and "/" not in key else None
        if first is None or old is None:
            return
        x = self._x(first.at)
        self._parts.append(
            f'<path d="M{x:.1f} {old + _ROW - 3}V{top + 1}" stroke="{_INK}" stroke-width="1.5" stroke-dasharray="3 2"/>'
            f'<path d="M{x - 4:.1f} {top - 3}h8l-4 6z" fill="{_INK}"/>'
        )

    def _grid(self, bottom: int) -> Iterator[str]:
        room = self._width - _GUTTER - _EDGE
        span = self._to - self._from
        step = next((step for step in _STEPS if step / span * room >= 70), _STEPS[-1])  # noqa: PLR2004 - pixels
        size, unit = next((one for one in _UNITS if step >= one[0]), _UNITS[-1])
        for number in range(int(span / step) + 1):
            x = self._x(self._from + number * step)
            yield f'<path d="M{x:.1f} {_TOP - 6}V{bottom}" stroke="{_GRID}"/>'
            yield self._words(x, _TOP - 14, f"{number * step / size:g} {unit}", _MUTED, 11, anchor="middle")

    def _frame(self, bottom: int) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._from))
        forgotten = f"; {self._dropped} older changes were forgotten" if self._dropped else ""
        height = bottom + 22
        head = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{self._width}" height="{height}"'
                f' viewBox="0 0 {self._width} {height}" font-family="system-ui, sans-serif" role="img">'
            ),
            f"<title>{escape(_clean(self._title))}</title>",
            f'<rect width="{self._width}" height="{height}" rx="8" fill="{_PAPER}"/>',
            self._words(12, 22, self._title, _INK, 16, bold=True),
            self._words(self._width - _EDGE, 22, f"from {began}{forgotten}", _MUTED, 11, anchor="end"),
            *self._grid(bottom),
        ]
        x = _GUTTER
        for state in SliceState:
            self._rect(x, bottom + 2, 12, 12, _COLOURS[state])
            self._text(x + 17, bottom + 8, state, _MUTED, 11)
            x += 34 + 7 * len(state)
        return "\n".join([*head, *self._parts, "</svg>", ""])

    def _rect(self, x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "") -> None:
        edge = f' stroke="{stroke}" stroke-width="1.5"' if stroke else ""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"{edge}/>'
        )

    def _text(self, x: float, y: float, text: str, fill: str, size: int, *, bold: bool = False) -> None:
        self._parts.append(self._words(x, y, text, fill, size, bold=bold))

    @staticmethod
    def _words(
        x: float, y: float, text: str, fill: str, size: int, *, bold: bool = False, anchor: str = "start"
    ) -> str:
        weight = ' font-weight="600"' if bold else ""
        return (
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}"{weight} text-anchor="{anchor}"'
            f' dominant-baseline="central">{escape(_clean(text))}</text>'
        )


def _clean(text: str) -> str:
    """Leave out what XML does not allow: exceptions bring anything."""
    return "".join(one if one >= " " or one in "\t\n" else "\ufffd" for one in text)
