"""Commands that show changes: `history`, `story`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, OneOf, as_json, journal_file, nearest
from sliceform.controller.cli.times import Moment
from sliceform.states import Change, Reason, Selection, SliceState


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
@click.option("--kind", type=OneOf(["slice", "host", "run", "fleet"]), help="Only changes of these records.")
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
        key = None
        if slice_id:
            key = known(journal, slice_id, "slice", "host")
        elif run_id:
            key = known(journal, run_id, "run")
        selection = Selection(reason, state, kind, key, since, until)
        seq = journal.last_seq
        found = [change for change in journal.select(**selection._asdict(), limit=limit) if change.seq <= seq]
        if not follow:
            return _answer(found, as_json=as_json)
        screen.stream(found, as_json=as_json)
        try:
            for changes in followed(journal, seq, selection):
                screen.stream(changes, as_json=as_json)
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
