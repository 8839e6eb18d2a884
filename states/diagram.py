"""Pictures and words drawn from a transition table, so that the docs cannot disagree with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sliceform.states.attempts import ATTEMPT_TABLE
from sliceform.states.couplings import COUPLINGS
from sliceform.states.errors import SliceformError
from sliceform.states.hosts import HOST_TABLE
from sliceform.states.runs import RUN_TABLE
from sliceform.states.slices import SLICE_TABLE

if TYPE_CHECKING:
    from sliceform.states.table import Row, S, T, TransitionTable

_BLOCK = re.compile(
    r"(?P<open><!-- generated:(?P<name>[\w-]+) -->\n).*?(?P<close><!-- /generated -->)",
    re.DOTALL,
)


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
    return "\n".join([f"A {table.name} in {_name(state)} may go", *map(_sentence, rows)]) + "\n"


def render_page(page: str) -> str:
    """Write every generated block of a page anew and leave the rest of it alone.

    A block stands between ``<!-- generated:NAME -->`` and ``<!-- /generated -->``, where NAME is the
    name of a table with ``-diagram`` or ``-table``, or ``couplings``.
    """
    blocks = {"couplings": _couplings()}
    for drawn in (_blocks(SLICE_TABLE), _blocks(HOST_TABLE), _blocks(RUN_TABLE), _blocks(ATTEMPT_TABLE)):
        blocks |= drawn

    def renew(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in blocks:
            msg = f"no generated block is called {name!r}; there are {', '.join(sorted(blocks))}"
            raise SliceformError(msg)
        return f"{found['open']}{blocks[name]}{found['close']}"

    return _BLOCK.sub(renew, page)


def _blocks(table: TransitionTable[S, T]) -> dict[str, str]:
    """Write the generated blocks of one table, by name."""
    return {
        f"{table.name}-diagram": f"```mermaid\n{mermaid(table)}```\n",
        f"{table.name}-table": markdown_table(table),
    }


def _couplings() -> str:
    """Write all couplings in markdown, one in each line."""
    lines = ["| when a | does | then | do | because |", "|---|---|---|---|---|"]
    lines.extend(
        f"| {row.table.name} | `{row.trigger}` | {row.whose} | `{row.then}` | {_cell(row.doc)} |"
        for row in COUPLINGS.rows
    )
    return "\n".join(lines) + "\n"


def _sentence(row: Row[S, T]) -> str:
    """Say where one row leads, by what, and when."""
    asks = f"; asks for {', '.join(row.effects)}" if row.effects else ""
    return f"  to {_name(row.dest)} by {row.trigger} ({row.kind}{asks}): {row.doc}"


def _name(state: str | None) -> str:
    """Write a state, or the point outside the machine."""
    return "[*]" if state is None else str(state)


def _cell(text: str) -> str:
    """Keep a text from ending its table cell."""
    return text.replace("|", "\\|")
