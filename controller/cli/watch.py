"""The command `watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, as_json
from sliceform.states import Selection, Story

if TYPE_CHECKING:
    from sliceform.controller.cli.page import Page
    from sliceform.controller.follow.journal.reader import Journal
    from sliceform.controller.follow.journal.tally import Wish

#: With how many of the last changes it begins where it shows a line for each.
_LAST = 10
#: How often the table is drawn anew though nothing happened, seconds.
_REFRESH_S = 1.0


@click.command(cls=Command)
@click.argument("source", metavar="FILE|URL")
@as_json
def watch(source: str, *, as_json: bool) -> int:
    """Watch a fleet live; Ctrl-C ends it.

    From the journal FILE that the fleet writes, or from the URL of `fleet.serve()`, which needs no journal. On a
    terminal it shows as much of the fleet as fits, first what is not ready. In a pipe every change is a line. It ends
    by itself when the driver does.
    """
    with _followed(source) as fleet:
        try:
            if sys.stdout.isatty() and not as_json:
                _keep_on_screen(fleet)
            else:
                seq = fleet.history.last_seq
                screen.stream(fleet.history.select(limit=_LAST), as_json=as_json)
                for changes in fleet.news(seq):
                    screen.stream(changes, as_json=as_json)
        except KeyboardInterrupt:
            return 0
        click.echo(fleet.said(), err=True)
    return 0


class _File:
    """A fleet that is followed through its journal."""

    def __init__(self, journal: Journal) -> None:
        self.history = journal

    def news(self, seq: int) -> Iterator[Story]:
        """Yield what comes after a change, as it comes, until nobody writes any more."""
        from sliceform.controller.cli.read import followed

        return followed(self.history, seq, Selection())

    def wish(self) -> Wish | None:
        """Say what is wanted; None if that is not known."""
        wishes = self.history.wishes()
        return wishes[-1] if wishes else None

    def said(self) -> str:
        """Say in a sentence how it stands with the driver."""
        from sliceform.controller.cli.read import ending

        return ending(self.history)


@contextmanager
def _followed(source: str) -> Iterator[_File | Page]:
    if source.startswith(("http://", "https://")):
        from sliceform.controller.cli.page import Page

        yield Page(source)
        return
    from sliceform.controller.cli.read import opened

    with opened(Path(source)) as journal:
        yield _File(journal)


def _keep_on_screen(fleet: _File | Page) -> None:
    from rich.console import Group
    from rich.live import Live

    from sliceform.controller.cli.frame import Frame

    frame = Frame(fleet.history)
    with Live(console=screen.console(), auto_refresh=False, screen=False) as live:
        shown_at = 0.0
        for changes in fleet.news(frame.seq):
            frame.take(changes)
            if not changes and time.time() - shown_at < _REFRESH_S:
                continue
            shown_at = time.time()
            parts = frame.draw(shown_at, fleet.wish(), fleet.said(), live.console.height)
            live.update(Group(*parts), refresh=True)
