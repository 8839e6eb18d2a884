"""The plain picture: right states at all times, well formed whatever the texts say, bounded."""

from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from sliceform.controller.report import timeline_svg
from sliceform.states import History
from sliceform.states.durations import stretches

from .conftest import Incident

_SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    root = ET.fromstring(picture)  # noqa: S314 - ours
    return [element.text or "" for element in root.iter(f"{_SVG}text")]


def _times(history: History) -> list[float]:
    moments = sorted({change.at for change in history})
    between = [(one + other) / 2 for one, other in pairwise(moments)]
    return sorted([*moments, *between])


@pytest.mark.parametrize("limit", [100_000, 40])
def test_bars_say_at_every_time_what_the_history_says(limit: int) -> None:
    """Also when the oldest changes were forgotten."""
    incident = Incident(history_limit=limit)
    incident.lose_and_recover()
    incident.fleet.close()
    history = incident.history
    assert (history.dropped > 0) == (limit == 40)
    drawn = stretches(*history.window())
    last = max(change.at for change in history)
    for time in _times(history):
        if time < last:
            seen = {key: bar.state for key, known in drawn.items() for bar in known if bar.begin <= time < bar.end}
            assert seen == history.at(time)


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


def test_no_more_rows_are_drawn_than_can_be_read() -> None:
    history = History()
    for number in range(300):
        history.append(
            tick=1,
            at=1.0 + number,
            kind="slice",
            key=f"slice-{number}",
            trigger="create",
            source=None,
            dest="pending",
            reason="desired",
        )
    assert sum(text.startswith("slice-") for text in texts(timeline_svg(history))) == 200
