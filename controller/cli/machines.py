"""Commands that show the state machines: `diagram`, `explain`."""

from __future__ import annotations

from typing import Any

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, OneOf, as_json
from sliceform.states import TABLES, Row, markdown_table, mermaid
from sliceform.states import explain as explained

#: How `explain` is asked about a record before its entry.
_BEFORE_ENTRY = "new"
_STATES = dict.fromkeys(str(row.source) for table in TABLES.values() for row in table.rows if row.source is not None)


@click.command(cls=Command)
@click.argument("table", type=OneOf(list(TABLES)), default="slice")
@click.option(
    "--format",
    "form",
    type=OneOf(["mermaid", "table"]),
    default="mermaid",
    show_default=True,
    help="A mermaid diagram, or a markdown table.",
)
@as_json
def diagram(table: str, form: str, *, as_json: bool) -> int:
    """Draw the transition table that slices run on, or hosts, runs, or attempts."""
    if as_json:
        screen.show_json([_row(row) for row in TABLES[table].rows])
        return 0
    draw = mermaid if form == "mermaid" else markdown_table
    click.echo(draw(TABLES[table]), nl=False)
    return 0


@click.command(cls=Command)
@click.argument("state", type=OneOf([*_STATES, _BEFORE_ENTRY]), metavar="STATE")
@click.option("--of", "of", type=OneOf(list(TABLES)), help="Only that; by default all that can be in STATE.")
@as_json
def explain(state: str, of: str | None, *, as_json: bool) -> int:
    """Say what may happen to a slice, host, run or attempt in STATE, for example running, or new; and when."""
    source = None if state == _BEFORE_ENTRY else state
    tables = {
        kind: table
        for kind, table in TABLES.items()
        if of in {None, kind} and any(row.source == source for row in table.rows)
    }
    if not tables:
        raise click.BadParameter(f"no {of} is ever {state}")
    if as_json:
        screen.show_json(
            {kind: [_row(row) for row in table.rows if row.source == source] for kind, table in tables.items()}
        )
        return 0
    click.echo("\n".join(explained(table, source) for table in tables.values()), nl=False)
    return 0


def _row(row: Row[Any, Any]) -> dict[str, object]:
    return {
        "trigger": row.trigger,
        "kind": row.kind,
        "source": row.source,
        "dest": row.dest,
        "effects": list(row.effects),
        "doc": row.doc,
    }
