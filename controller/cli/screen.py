"""How answers are printed: for people with tables and, on a terminal, colours; for programs as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sliceform.controller.cli.times import when
from sliceform.states import Change

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_STYLES = {
    "pending": "yellow",
    "placed": "cyan",
    "ready": "green",
    "running": "bold green",
    "preempted": "bold red",
    "draining": "magenta",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "superseded": "cyan",
    "waiting": "yellow",
}
#: Wide enough that nothing wraps where nobody looks at a screen.
_PIPE_WIDTH = 2000


def console() -> Console:
    """Return a console on standard output; colours only on a terminal, and never with NO_COLOR."""
    from rich.console import Console

    out = sys.stdout
    return Console(
        file=out,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        width=None if out.isatty() else _PIPE_WIDTH,
    )


def show(*parts: Any) -> None:
    """Print lines, styled text and tables, one after the other."""
    from rich.text import Text

    screen = console()
    terminal = screen.is_terminal
    for part in parts:
        if terminal:
            screen.print(part)
            continue
        # Without rich's layout, which takes ten times as long: a history may have 100,000 lines.
        if isinstance(part, (str, Text)):
            click.echo(str(part).rstrip())
            continue
        with screen.capture() as captured:
            screen.print(part)
        for line in captured.get().splitlines():
            click.echo(line.rstrip())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], cut: Collection[str] = ()) -> Table:
    """Make a table without frames; cells that are states have their colour.

    With `cut` every row stays one line: where it would not fit, the cells of these columns are cut.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        head = Text(column)
        made.add_column(one_line(head) if cut else head, overflow="fold", no_wrap=bool(cut) and column not in cut)
    for row in rows:
        cells = (_cell(cell) for cell in row)
        made.add_row(*(one_line(cell) if cut else cell for cell in cells))
    return made


def one_line(text: Text) -> Text:
    """Make a text stay on one line, cut where it would not fit."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def change_line(change: Change, width: int = 0) -> Text:
    """Write a change in one line, its key padded to a width."""
    from rich.text import Text

    line = Text(f"{when(change.at)}  ", style="dim")
    line.append(f"{change.key:<{width}}  ", style="not dim")
    if change.is_note:
        line.append("note", style="not dim")
    else:
        line.append(change.source or "[*]", style=f"not dim {_STYLES.get(change.source or '', '')}".strip())
        line.append(" -> ")
        line.append(change.dest or "[*]", style=f"not dim {_STYLES.get(change.dest or '', '')}".strip())
    line.append(f"  ({change.reason})", style="not dim")
    line.append(f" {change.detail}" if change.detail else "", style="not dim")
    line.append(f"  <- {change.cause}" if change.cause else "")
    return line


def show_changes(changes: Sequence[Change]) -> None:
    """Print changes, one line each."""
    width = max((len(change.key) for change in changes), default=0)
    show(*(change_line(change, width) for change in changes))


def stream(changes: Iterable[Change], *, as_json: bool) -> None:
    """Print changes as they come, at once."""
    for change in changes:
        if as_json:
            show_json_line(change.as_dict())
        else:
            show(change_line(change))
    sys.stdout.flush()


def show_json(answer: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(answer, indent=2))


def show_json_line(answer: Any) -> None:
    """Print one line of JSON, at once."""
    click.echo(json.dumps(answer))
    sys.stdout.flush()


def _cell(cell: Any) -> Text:
    from rich.text import Text

    text = "" if cell is None else str(cell)
    return Text(text, style=_STYLES.get(text, ""))
