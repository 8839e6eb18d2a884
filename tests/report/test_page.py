"""The page is one file that needs nothing else, whatever the history says."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceform.controller.report import timeline_page
from sliceform.controller.report.page import script_json, style
from sliceform.states import History, SliceState

#: Texts that would end the script, begin a comment or be a tag if they were let through.
NASTY = [
    "</script><script>alert(1)</script>",
    "<!--",
    "-->",
    "<img src=x onerror=alert(1)>",
    "&lt;",
    "\u2028\u2029",
    "\0",
    "\udcff",
]


class _Page(HTMLParser):
    """What a browser would find: elements, and what stands in the element of the data and in the title."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data


def with_text(text: str) -> History:
    history = History()
    fields = {"tick": 1, "at": 1.0, "kind": "slice", "trigger": "create", "source": None, "dest": "pending"}
    history.append(**fields, key="slice-1", reason="desired", detail=text)
    return history


@pytest.mark.parametrize("text", NASTY)
def test_no_text_of_a_history_can_leave_its_place(text: str) -> None:
    plain = _Page(timeline_page(with_text("plain"), title="plain"))
    page = _Page(timeline_page(with_text(text), title=text))
    assert [tag for tag, _ in page.found] == [tag for tag, _ in plain.found]
    data = json.loads(page.texts["data"])
    assert text in data["texts"]
    assert data["title"] == text
    assert page.texts["title"].replace("\ufffd", "\0") == text


@given(st.text(st.characters()))
def test_any_text_comes_through_a_script_element_unchanged(text: str) -> None:
    written = script_json({"text": text})
    assert json.loads(written) == {"text": text}
    assert written.isascii()
    assert not set(written) & set("<>&")


def test_the_page_asks_no_network(history: History) -> None:
    text = timeline_page(history)
    page = _Page(text)
    assert not [attrs for _, attrs in page.found if "src" in attrs]
    assert [attrs["href"] for tag, attrs in page.found if tag == "link"] == ["data:,"]
    # The name of SVG's vocabulary looks like an address; nobody goes there.
    assert set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)) == {"http://www.w3.org"}
    (policy,) = [attrs["content"] for tag, attrs in page.found if attrs.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "connect-src 'self'" in timeline_page(history, server="a server")


def test_nothing_of_the_template_is_left_open(history: History) -> None:
    assert "<!--" not in timeline_page(history)


def test_every_state_and_outcome_has_a_colour_in_light_and_in_dark() -> None:
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in style().split("@media")[:2])
    outcomes = {"succeeded", "failed", "preempted", "cancelled", "superseded"}
    assert outcomes | set(SliceState) <= set(light) & set(dark)
    assert {f"on-{state}" for state in SliceState} <= set(light)
    assert set(dark) <= set(light)
