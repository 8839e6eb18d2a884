"""How answers are printed: for people with tables and, on a terminal, colours; for programs as JSON."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sliceform.controller.cli.times import is_today, when
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
#: Columns of a table that may be long: where a row would not fit, they stand below it.
_LONG = frozenset({"detail", "gone", "node", "out of use", "reason", "slices"})
_GAP, _BELOW = "  ", "    "
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


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Text:
    """Write a table without frames; cells that are states have their colour.

    Where a row would be wider than the screen, long texts stand below it, each on lines of its own.
    """
    from rich.text import Text

    cells = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(head), *(len(row[index]) for row in cells)) for index, head in enumerate(columns)]
    kept = list(range(len(columns)))
    width = console().width
    for index in sorted((index for index in kept if columns[index] in _LONG), reverse=True):
        if sum(widths[one] + len(_GAP) for one in kept) - len(_GAP) > width:
            kept.remove(index)
    lines = [_row([Text(columns[index], style="bold") for index in kept], [widths[index] for index in kept])]
    for row in cells:
        lines.append(_row([row[index] for index in kept], [widths[index] for index in kept]))
        below = ((columns[index], row[index].plain) for index in range(len(columns)) if index not in kept)
        lines += [Text(line) for head, text in below if text for line in _below(f"{head}: {text}", width)]
    return Text("\n").join(lines)


def frame_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], cut: Collection[str]) -> Table:
    """Make a table of which every row stays one line: where it would not fit, the cells of `cut` columns are cut."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(one_line(Text(column)), overflow="fold", no_wrap=column not in cut)
    for row in rows:
        made.add_row(*(one_line(_cell(cell)) for cell in row))
    return made


def one_line(text: Text) -> Text:
    """Make a text stay on one line, cut where it would not fit."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def change_line(change: Change, width: int = 0, *, dated: bool = False) -> Text:
    """Write a change in one line, its key padded to a width; its date stands there if it has to, or with `dated`."""
    from rich.text import Text

    line = Text(f"{when(change.at, dated=dated)}  ", style="dim")
    line.append(f"{change.key:<{width}}  ", style="not dim")
    if change.is_note:
        line.append("note", style="not dim")
    else:
        line.append(change.source or "[*]", style=f"not dim {_STYLES.get(change.source or '', '')}".strip())
        line.append(" -> ")
        line.append(change.led_to, style=f"not dim {_STYLES.get(change.led_to, '')}".strip())
    line.append(f"  ({change.reason})", style="not dim")
    line.append(f" {change.detail}" if change.detail else "", style="not dim")
    line.append(f"  <- {change.cause}" if change.cause else "")
    return line


def show_changes(changes: Sequence[Change]) -> None:
    """Print changes, one line each, either all with their date or none."""
    width = max((len(change.key) for change in changes), default=0)
    dated = not all(is_today(at) for at in {changes[0].at, changes[-1].at})
    show(*(change_line(change, width, dated=dated) for change in changes))


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


def _row(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    from rich.text import Text

    line = Text(_GAP).join(cell + " " * (width - len(cell)) for cell, width in zip(cells, widths, strict=True))
    line.rstrip()
    return line


def _below(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=_BELOW, subsequent_indent=2 * _BELOW, break_on_hyphens=False)


def _cell(cell: Any) -> Text:
    from rich.text import Text

    text = "" if cell is None else str(cell)
    return Text(text, style=_STYLES.get(text, ""))
