"""Commands that show changes: `history`, `story`, `watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, OneOf, as_json, journal_file, nearest
from sliceform.controller.cli.times import Moment
from sliceform.states import Change, Reason, Selection, SliceState

#: How many of the last changes `watch` begins with, or shows below the table.
_LAST = 10
#: How often the table of `watch` is drawn anew though nothing happened, seconds.
_REFRESH_S = 1.0


class _ReasonCode(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """The code of a reason."""

    name = "code"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take a code; a wrong one is answered with the nearest."""
        code = str(value).lower()
        if code not in set(Reason):
            self.fail(f"there is no reason {value!r}{nearest(code, Reason)}", param, ctx)
        return code


@click.command(cls=Command)
@journal_file
@click.option("--slice", "slice_id", metavar="ID", help="Only this slice with its hosts, or only this host.")
@click.option("--run", "run_id", metavar="ID", help="Only this run.")
@click.option("--reason", type=_ReasonCode(), metavar="CODE", help="Only changes for this reason.")
@click.option("--state", type=OneOf([state.value for state in SliceState]), help="Only changes that led to this state.")
@click.option("--kind", type=OneOf(["slice", "host", "run"]), help="Only changes of these records.")
@click.option("--since", type=Moment(), help="Not before this time: ISO, time of today, epoch seconds, or 10m ago.")
@click.option("--until", type=Moment(), help="Before this time.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until the driver ends.")
@as_json
def history(
    file: Path,
    *,
    slice_id: str | None,
    run_id: str | None,
    reason: str | None,
    state: str | None,
    kind: str | None,
    since: float | None,
    until: float | None,
    limit: int | None,
    follow: bool,
    as_json: bool,
) -> int:
    """Show what happened, in order, from the journal FILE; all that is asked for has to hold."""
    from sliceform.controller.cli.read import followed, known, opened

    if slice_id and run_id:
        raise click.UsageError("--slice and --run exclude each other")
    with opened(file) as journal:
        key = known(journal, slice_id or run_id or "") if slice_id or run_id else None
        selection = Selection(reason, state, kind, key, since, until)
        seq = journal.last_seq
        found = [change for change in journal.select(**selection._asdict(), limit=limit) if change.seq <= seq]
        if not follow:
            return _answer(found, as_json=as_json)
        _stream(found, as_json=as_json)
        try:
            for changes in followed(journal, seq, selection):
                _stream(changes, as_json=as_json)
        except KeyboardInterrupt:
            return 0
    return 0


@click.command(cls=Command)
@journal_file
@click.argument("keys", nargs=-1, required=True, metavar="ID...")
@as_json
def story(file: Path, keys: tuple[str, ...], *, as_json: bool) -> int:
    """Tell what happened to slices, hosts or runs, for example slice-2 or run-1; a slice's story includes its hosts."""
    from sliceform.controller.cli.read import known, opened

    with opened(file) as journal:
        return _answer(journal.story(*(known(journal, key) for key in keys)), as_json=as_json)


@click.command(cls=Command)
@journal_file
@as_json
def watch(file: Path, *, as_json: bool) -> int:
    """Watch a fleet live, from the journal that it writes; Ctrl-C ends it.

    In a pipe every change is a line. It ends by itself when the driver does.
    """
    from sliceform.controller.cli.read import ending, followed, opened

    with opened(file) as journal:
        try:
            if sys.stdout.isatty() and not as_json:
                _watch_live(journal)
            else:
                seq = journal.last_seq
                _stream(journal.select(limit=_LAST), as_json=as_json)
                for changes in followed(journal, seq, Selection()):
                    _stream(changes, as_json=as_json)
        except KeyboardInterrupt:
            return 0
        click.echo(ending(journal), err=True)
    return 0


def _watch_live(journal: object) -> None:
    """Keep a table of the fleet on the terminal, with the last changes below."""
    from rich.console import Group
    from rich.live import Live

    from sliceform.controller.cli.fleet import fleet_view
    from sliceform.controller.cli.past import fleet_at
    from sliceform.controller.cli.read import ending, followed
    from sliceform.controller.journal.reader import Journal

    assert isinstance(journal, Journal)
    with Live(console=screen.console(), auto_refresh=False, screen=False) as live:
        shown_at = 0.0
        for changes in followed(journal, journal.last_seq, Selection()):
            if not changes and time.time() - shown_at < _REFRESH_S:
                continue
            shown_at = time.time()
            lines = [screen.change_line(change) for change in journal.select(limit=_LAST)]
            view = fleet_view(fleet_at(journal, shown_at), ending(journal))
            live.update(Group(*view, *lines), refresh=True)


def _answer(changes: Iterable[Change], *, as_json: bool) -> int:
    """Print changes as one answer; none at all is a no."""
    found = list(changes)
    if as_json:
        screen.show_json([change.as_dict() for change in found])
    elif found:
        screen.show_changes(found)
    else:
        click.echo("no change in the journal matches", err=True)
    return 0 if found else 1


def _stream(changes: Iterable[Change], *, as_json: bool) -> None:
    """Print changes as they come, at once."""
    for change in changes:
        if as_json:
            screen.show_json_line(change.as_dict())
        else:
            screen.show(screen.change_line(change))
    sys.stdout.flush()
