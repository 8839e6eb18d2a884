"""The plain picture: right states at all times, well formed whatever the texts say, bounded."""

import re
from itertools import pairwise
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from sliceform.controller.report import timeline_svg
from sliceform.controller.report.page import style
from sliceform.states import AttemptRecord, History

from .conftest import Incident

_SVG = "{http://www.w3.org/2000/svg}"
#: Where the axis of a picture of this width begins and ends, pixels.
_WIDTH = 20_000
_LEFT, _RIGHT = 96, _WIDTH - 16


class Box(NamedTuple):
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str | None

    def has(self, x: float, y: float) -> bool:
        """Whether it covers this point."""
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


class Drawn:
    """What stands in a picture, read as anybody would who sees it."""

    def __init__(self, picture: str, history: History) -> None:
        self.root = ET.fromstring(picture)  # noqa: S314 - ours
        self.boxes = [
            Box(
                *(float(one.get(name, 0)) for name in ("x", "y", "width", "height")),
                one.get("fill", ""),
                one.get("stroke"),
            )
            for one in self.root.iter(f"{_SVG}rect")
        ][1:]
        #: The middle of every row, by key.
        self.rows: dict[str, float] = {}
        owner = ""
        for text in self.root.iter(f"{_SVG}text"):
            if float(text.get("x", 0)) < _LEFT - 10 and (name := text.text or "").startswith(
                ("slice-", "run-", "host ")
            ):
                owner = owner if name.startswith("host ") else name
                self.rows[name.replace("host ", f"{owner}/")] = float(text.get("y", 0))
        times = [change.at for change in history]
        self.begin, self.end = min(times), max(times)

    def x(self, time: float) -> float:
        """Return where a time is."""
        return _LEFT + (time - self.begin) / (self.end - self.begin) * (_RIGHT - _LEFT)

    def fill(self, key: str, time: float) -> str | None:
        """Return the colour that is on top in a row at a time; None for none."""
        seen = [box.fill for box in self.boxes if box.has(self.x(time), self.rows[key])]
        return seen[-1] if seen else None

    def texts(self, key: str) -> dict[str, float]:
        """Return what is written in a row, with where it begins."""
        found = [one for one in self.root.iter(f"{_SVG}text") if float(one.get("y", 0)) == self.rows[key]]
        return {one.text or "": float(one.get("x", 0)) for one in found}


def colours() -> dict[str, str]:
    """Return the colours of the page in its light dress."""
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", style().split("@media")[0]))


def texts(picture: str) -> list[str]:
    root = ET.fromstring(picture)  # noqa: S314 - ours
    return [element.text or "" for element in root.iter(f"{_SVG}text")]


def moments(history: History) -> list[float]:
    """Return times between all changes that are far enough apart to be seen."""
    times = sorted({change.at for change in history})
    return [(one + other) / 2 for one, other in pairwise(times) if other - one > 0.01]


@pytest.fixture(params=[100_000, 70])
def lived(request: pytest.FixtureRequest) -> History:
    """The history of the incident, whole or without its oldest changes."""
    incident = Incident(history_limit=request.param)
    incident.lose_and_recover()
    incident.fleet.close()
    assert (incident.history.dropped > 0) == (request.param == 70)
    return incident.history


def test_bars_say_at_every_time_what_the_history_says(lived: History) -> None:
    """Also when the oldest changes were forgotten."""
    drawn, named = Drawn(timeline_svg(lived, width=_WIDTH), lived), colours()
    keys = [key for key in drawn.rows if not key.startswith("run-")]
    assert len(keys) == 9
    times = moments(lived)
    assert len(times) > 5
    for time in times:
        states = lived.at(time)
        for key in keys:
            expected = named[states[key]] if key in states else None
            assert drawn.fill(key, time) == expected, (key, time)


def test_a_loss_and_its_cause_are_on_top_of_what_came_after(lived: History) -> None:
    drawn, named = Drawn(timeline_svg(lived, width=_WIDTH), lived), colours()
    loss, drain, release = (
        next(one for one in lived if one.key == "slice-2" and one.trigger == name)
        for name in ("preempt", "drain", "release")
    )
    at_loss = drawn.x(loss.at) + 1
    assert [box.fill for box in drawn.boxes if box.has(at_loss, drawn.rows["slice-2"])][-1] == named["preempted"]
    assert drain.at - loss.at < 1e-6 < release.at - drain.at
    assert drawn.texts("slice-2")["node_died"] >= drawn.x(release.at)


def test_attempts_are_framed_in_the_colour_of_their_outcome(lived: History) -> None:
    drawn, named = Drawn(timeline_svg(lived, width=_WIDTH), lived), colours()
    frames = [box for box in drawn.boxes if box.stroke]
    for attempt, frame in zip(lived.attempts.of(), frames, strict=True):
        assert frame.stroke == named[attempt.outcome or ""]
        assert frame.has(drawn.x(max(attempt.started_at, drawn.begin)) + 1, drawn.rows["run-1"])
        assert frame.x >= _LEFT
        assert frame.x == pytest.approx(max(_LEFT, drawn.x(attempt.started_at)), abs=0.1)
        assert frame.x + frame.width == pytest.approx(drawn.x(attempt.ended_at or 0.0), abs=0.1)


def test_a_line_leads_from_a_lost_slice_to_the_one_that_replaced_it(lived: History) -> None:
    drawn = Drawn(timeline_svg(lived, width=_WIDTH), lived)
    (dashed,) = [one for one in drawn.root.iter(f"{_SVG}path") if one.get("stroke-dasharray")]
    x, begin, end = map(float, re.fullmatch(r"M([\d.]+) ([\d.]+)V([\d.]+)", dashed.get("d", "")).groups())  # type: ignore[union-attr]
    (created,) = [change for change in lived if change.key == "slice-3" and change.trigger == "create"]
    assert x == pytest.approx(drawn.x(created.at), abs=0.1)
    assert drawn.rows["slice-2"] < begin < end < drawn.rows["slice-3"]


def test_it_says_that_older_changes_were_forgotten(lived: History) -> None:
    (said,) = [text for text in texts(timeline_svg(lived)) if text.startswith("from 20")]
    assert (f"{lived.dropped} older changes were forgotten" in said) == bool(lived.dropped)


def test_the_incident_is_seen(history: History) -> None:
    said = texts(timeline_svg(history, title="A <fleet> & its slices"))
    assert said[0] == "A <fleet> & its slices"
    assert {"run-1", "slice-1", "slice-2", "slice-3", "host 0", "host 1"} <= set(said)
    assert "attempt 1: preempted" in said
    assert "attempt 2: succeeded" in said
    assert "node_died" in said


def test_texts_that_xml_cannot_hold_are_replaced(history: History) -> None:
    assert texts(timeline_svg(history, title="\x00bell\x07"))[0] == "\ufffdbell\ufffd"


def test_an_empty_history_is_a_picture_too() -> None:
    assert texts(timeline_svg(History(), title="nothing"))[0] == "nothing"


def add(history: History, key: str, at: float, cause: str | None = None) -> None:
    kind = "host" if "/" in key else "slice"
    moved = {"trigger": "create", "source": None, "dest": "pending", "reason": "desired"}
    history.append(tick=1, at=at, kind=kind, key=key, cause=cause, **moved)


def test_no_more_rows_are_drawn_than_can_be_read() -> None:
    """Runs leave room for slices, and what is left out is counted."""
    history = History()
    for number in range(300):
        add(history, f"slice-{number}", 1.0 + number)
        add(history, f"slice-{number}/0", 1.0 + number)
        history.attempts.record(AttemptRecord(f"run-{number}", 1, (), (), 1.0 + number))
    drawn = Drawn(timeline_svg(history), history)
    assert len(drawn.rows) == 200
    assert sum(key.startswith("run-") for key in drawn.rows) == 100
    assert "slice-49/0" in drawn.rows
    assert "and 700 more" in texts(timeline_svg(history))


@pytest.mark.parametrize(
    ("seconds", "mark"), [(5.0, "4 s"), (7200.0, "20 min"), (86400.0, "4 h"), (6e6, "14 d"), (6e8, "3640 d")]
)
def test_the_axis_has_a_unit_for_every_span(seconds: float, mark: str) -> None:
    history = History()
    add(history, "slice-1", 1e9)
    add(history, "slice-2", 1e9 + seconds)
    said = texts(timeline_svg(history))
    assert mark in said
    assert len([text for text in said if re.fullmatch(r"[\d.e+]+ (s|min|h|d)", text)]) <= 20
