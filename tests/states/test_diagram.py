"""Pictures and words: complete, repeatable, and the page in docs is current."""

import re

import pytest

from sliceform.states import (
    SLICE_TABLE,
    TABLES,
    AttemptState,
    Effect,
    RunState,
    SliceState,
    explain,
    markdown_table,
    mermaid,
)


@pytest.fixture(scope="module")
def page(request):
    """docs/states.md as it is."""
    return (request.config.rootpath / "docs" / "states.md").read_text(encoding="utf-8")


each = pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)


def outside(state):
    """A state, or the sign for outside."""
    return state or "[*]"


@each
def test_the_diagram_has_each_row_and_nothing_else(table):
    """One arrow per row, in the order of the table."""
    head, *arrows = mermaid(table).splitlines()
    assert head == "stateDiagram-v2"
    assert [arrow.strip() for arrow in arrows] == [
        f"{outside(row.source)} --> {outside(row.dest)} : {row.trigger}" for row in table.rows
    ]


@each
def test_the_markdown_table_has_each_row_and_nothing_else(table):
    """Read back, it gives the rows."""
    lines = markdown_table(table).splitlines()[2:]
    read = set()
    for line in lines:
        trigger, kind, sources, dest, effects, doc = (cell.strip() for cell in line.strip("|").split("|"))
        read |= {(trigger.strip("`"), kind, source, dest, effects, doc) for source in sources.split(", ")}
    assert read == {
        (
            *(row.trigger, row.kind, outside(row.source), outside(row.dest)),
            *(", ".join(row.effects) or "-", row.doc),
        )
        for row in table.rows
    }


@each
def test_each_state_is_explained(table):
    """Every way on, with when; nothing from elsewhere."""
    for state in (None, *table.states):
        text = explain(table, state)
        assert outside(state) in text.splitlines()[0]
        rows = [row for row in table.rows if row.source == state]
        assert len(text.splitlines()) == 1 + len(rows)
        for row in rows:
            assert f"to {outside(row.dest)} by {row.trigger} ({row.kind}" in text
            assert row.doc in text


def test_an_explanation_names_what_is_asked_for():
    """So that a reader knows what will be done."""
    assert "(command; asks for launch)" in explain(SLICE_TABLE, SliceState.READY)


@each
def test_every_doc_is_a_sentence(table):
    """It begins with a capital and ends with a full stop."""
    for row in table.rows:
        assert re.fullmatch(r"[A-Z].*\.", row.doc)


def test_the_page_tells_every_state_and_effect_of_the_tables(page):
    """What is written by hand on the page is complete too."""
    for word in (*SliceState, *RunState, *AttemptState, *Effect):
        assert f"\n| `{word}` |" in page


def test_the_example_on_the_page_prints_what_it_says(page, capsys):
    """The code blocks of the page run as they stand."""
    codes = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(codes) == 2
    for code in codes:
        exec(code, {})  # noqa: S102 - our own page
    printed = capsys.readouterr().out
    (expected,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert printed == expected + explain(SLICE_TABLE, SliceState.RUNNING) + "\n"
