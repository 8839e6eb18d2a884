"""Commands that show the state machines: `diagram`, `explain`."""

from __future__ import annotations

from typing import Any

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, OneOf, as_json
from sliceform.states import HOST_TABLE, SLICE_TABLE, HostState, Row, SliceState, markdown_table, mermaid
from sliceform.states import explain as explained

#: How `explain` is asked about a record before its entry.
_BEFORE_ENTRY = "new"


@click.command(cls=Command)
@click.argument("table", type=OneOf(["slice", "host"]), default="slice")
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
    """Draw the transition table that slices, or hosts, run on."""
    rows = SLICE_TABLE.rows if table == "slice" else HOST_TABLE.rows
    if as_json:
        screen.show_json([_row(row) for row in rows])
        return 0
    draw = mermaid if form == "mermaid" else markdown_table
    click.echo(draw(SLICE_TABLE) if table == "slice" else draw(HOST_TABLE), nl=False)
    return 0


@click.command(cls=Command)
@click.argument("state", type=OneOf([*(state.value for state in SliceState), _BEFORE_ENTRY]), metavar="STATE")
@click.option("--of", "of", type=OneOf(["slice", "host"]), help="Only that; by default both.")
@as_json
def explain(state: str, of: str | None, *, as_json: bool) -> int:
    """Say what may happen to a slice or a host in STATE, for example running, or new; and when."""
    slice_state = None if state == _BEFORE_ENTRY else SliceState(state)
    host_state = None if state == _BEFORE_ENTRY else HostState(state)
    if as_json:
        rows: dict[str, list[dict[str, object]]] = {}
        if of != "host":
            rows["slice"] = [_row(row) for row in SLICE_TABLE.rows if row.source == slice_state]
        if of != "slice":
            rows["host"] = [_row(row) for row in HOST_TABLE.rows if row.source == host_state]
        screen.show_json(rows)
        return 0
    texts = [] if of == "host" else [explained(SLICE_TABLE, slice_state)]
    texts += [] if of == "slice" else [explained(HOST_TABLE, host_state)]
    click.echo("\n".join(texts), nl=False)
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
