"""The command `watch`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, as_json, journal_file
from sliceform.states import Selection

if TYPE_CHECKING:
    from sliceform.controller.journal.reader import Journal

#: With how many of the last changes it begins where it shows a line for each.
_LAST = 10
#: How often the table is drawn anew though nothing happened, seconds.
_REFRESH_S = 1.0


@click.command(cls=Command)
@journal_file
@as_json
def watch(file: Path, *, as_json: bool) -> int:
    """Watch a fleet live, from the journal that it writes; Ctrl-C ends it.

    On a terminal it shows as much of the fleet as fits, first what is not ready. In a pipe every change is a line. It
    ends by itself when the driver does.
    """
    from sliceform.controller.cli.read import ending, followed, opened

    with opened(file) as journal:
        try:
            if sys.stdout.isatty() and not as_json:
                _watch_live(journal)
            else:
                seq = journal.last_seq
                screen.stream(journal.select(limit=_LAST), as_json=as_json)
                for changes in followed(journal, seq, Selection()):
                    screen.stream(changes, as_json=as_json)
        except KeyboardInterrupt:
            return 0
        click.echo(ending(journal), err=True)
    return 0


def _watch_live(journal: Journal) -> None:
    """Keep the fleet on the terminal, with the last changes below."""
    from rich.console import Group
    from rich.live import Live

    from sliceform.controller.cli.frame import Frame
    from sliceform.controller.cli.read import ending, followed

    frame = Frame(journal)
    with Live(console=screen.console(), auto_refresh=False, screen=False) as live:
        shown_at = 0.0
        for changes in followed(journal, frame.seq, Selection()):
            frame.take(changes)
            if not changes and time.time() - shown_at < _REFRESH_S:
                continue
            shown_at = time.time()
            wishes = journal.wishes()
            parts = frame.draw(shown_at, wishes[-1] if wishes else None, ending(journal), live.console.height)
            live.update(Group(*parts), refresh=True)
