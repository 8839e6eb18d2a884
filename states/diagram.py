"""Pictures and words drawn from a transition table, so that the docs cannot disagree with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sliceform.states.table import Row, S, T, TransitionTable


def mermaid(table: TransitionTable[S, T]) -> str:
    """Draw the table as a mermaid state diagram, one arrow per row; ``[*]`` is outside."""
    lines = ["stateDiagram-v2"]
    lines.extend(f"    {_name(row.source)} --> {_name(row.dest)} : {row.trigger}" for row in table.rows)
    return "\n".join(lines) + "\n"


def markdown_table(table: TransitionTable[S, T]) -> str:
    """Write the table in markdown; rows that differ only in their source share a line."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for row in table.rows:
        what = (row.trigger, row.kind, _name(row.dest), ", ".join(row.effects) or "-", row.doc)
        merged.setdefault(what, []).append(_name(row.source))
    lines = [
        "| trigger | kind | from | to | asks for | when |",
        "|---|---|---|---|---|---|",
    ]
    lines.extend(
        f"| `{trigger}` | {kind} | {', '.join(sources)} | {dest} | {effects} | {_cell(doc)} |"
        for (trigger, kind, dest, effects, doc), sources in merged.items()
    )
    return "\n".join(lines) + "\n"


def explain(table: TransitionTable[S, T], state: S | None) -> str:
    """Say what may happen to a record in this state, and when; None means before entry."""
    rows = [row for row in table.rows if row.source == state]
    return "\n".join([f"{_article(table.name)} {table.name} in {_name(state)} may go", *map(_sentence, rows)]) + "\n"


def _sentence(row: Row[S, T]) -> str:
    """Say where one row leads, by what, and when."""
    asks = f"; asks for {', '.join(row.effects)}" if row.effects else ""
    return f"  to {_name(row.dest)} by {row.trigger} ({row.kind}{asks}): {row.doc}"


def _article(noun: str) -> str:
    return "An" if noun[0] in "aeiou" else "A"


def _name(state: str | None) -> str:
    """Write a state, or the point outside the machine."""
    return "[*]" if state is None else str(state)


def _cell(text: str) -> str:
    """Keep a text from ending its table cell."""
    return text.replace("|", "\\|")
