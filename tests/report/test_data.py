"""What a page draws: every change once, in columns, and nothing lost on the way."""

import json
from itertools import accumulate
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sliceform.controller.report.data import columns, news, timeline_data
from sliceform.states import Change, History, Reason

from .conftest import Incident

_words = st.text(max_size=6)
_moments = st.floats(min_value=0, max_value=4e9, allow_nan=False)


@st.composite
def _changes(draw: st.DrawFn) -> list[Change]:
    times = sorted(draw(st.lists(_moments, max_size=12)))
    optional = st.none() | _words.filter(bool)
    return [
        Change(
            seq=seq,
            tick=seq,
            at=at,
            kind=draw(st.sampled_from(["slice", "host", "run"])),
            key=draw(_words),
            trigger=draw(optional),
            source=draw(optional),
            dest=draw(optional),
            reason=draw(_words),
            detail=draw(_words),
            cause=draw(optional),
        )
        for seq, at in enumerate(times, start=1)
    ]


def rows(data: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Read columns as the page does: (at in milliseconds, kind, key, from, to, trigger, reason, detail, cause)."""
    fields = ("kind", "key", "from", "to", "trigger", "reason", "detail", "cause")
    words = ([data["texts"][number] for number in data[field]] for field in fields)
    return list(zip(accumulate(data["at"]), *words, strict=True))


def told(change: Change) -> tuple[Any, ...]:
    """Say of a change what the page can know; no text and an empty one are the same to it."""
    words = (change.source, change.dest, change.trigger, change.reason, change.detail, change.cause)
    return (round(change.at * 1000), change.kind, change.key, *(word or "" for word in words))


@given(_changes())
def test_every_change_comes_back_from_its_columns(changes: list[Change]) -> None:
    data = json.loads(json.dumps(columns(changes, 0)))
    assert rows(data) == [told(change) for change in changes]
    assert data["seq"] == len(changes)
    assert len(set(data["texts"])) == len(data["texts"])


def test_a_history_comes_whole_with_its_attempts_and_what_reasons_mean(history: History) -> None:
    data = timeline_data(history, title="an incident")
    assert rows(data) == [told(change) for change in history]
    assert (data["title"], data["dropped"], data["base"], data["now"]) == ("an incident", 0, {}, None)
    assert set(data["reasons"]) == {reason.value for reason in Reason}
    first, second = data["attempts"]
    assert (first["run"], first["number"], first["outcome"]) == ("run-1", 1, "preempted")
    assert first["slices"] == ("slice-1", "slice-2")
    assert second["outcome"] == "succeeded"
    assert second["began"] >= first["ended"]
    assert [host[1] for host in second["hosts"]] == ["returned"] * 4


def test_news_are_the_changes_after_a_number_with_the_attempts_they_tell_of(history: History) -> None:
    whole = list(history)
    for since in (0, 1, len(whole) // 2, len(whole) - 1, len(whole), len(whole) + 5):
        found = news(history, since, now=2.0)
        assert rows(found) == [told(change) for change in whole[since:]]
        assert found["now"] == 2000
        assert found["seq"] == len(whole)
        assert found["since"] == (round(whole[since - 1].at * 1000) if 0 < since <= len(whole) else None)
        runs = {change.key for change in whole[since:] if change.kind == "run"}
        assert {attempt["run"] for attempt in found["attempts"]} == runs


def test_an_empty_history_is_drawn_as_one() -> None:
    data = timeline_data(History(), title="nothing")
    assert (data["seq"], data["at"], data["attempts"]) == (0, [], [])


def test_a_page_and_its_news_count_on_from_what_was_forgotten() -> None:
    """A history that goes on after another may have no change yet; and the oldest may be dropped at any time."""
    history = History()
    history.resume(40, 9.0, [])
    assert (timeline_data(history, title="resumed")["seq"], news(history, 40, now=9.0)["seq"]) == (40, 40)
    short = Incident(history_limit=40)
    short.lose_and_recover()
    short.fleet.close()
    found = news(short.history, 1, now=0.0)
    assert found["since"] is None
    assert found["seq"] > 1 + len(found["at"])
