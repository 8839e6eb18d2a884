"""Commands that show the fleet and its work: `status`, `runs`, `lineage`, `durations`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, as_json, journal_file
from sliceform.controller.cli.times import Moment, span, when
from sliceform.states import HostEnd, Link, RunStory, SliceState

if TYPE_CHECKING:
    from sliceform.controller.report.past import PastFleet

#: Of runs that are over, so many are shown with the fleet, the newest.
_OVER = 5
_SLICE_COLUMNS = ("slice", "state", "since", "for", "place", "hosts", "reason", "detail")
_RUN_COLUMNS = ("run", "state", "attempts", "stood still", "detail")
_ATTEMPT_COLUMNS = ("attempt", "outcome", "began", "took", "slices", "then stood still", "detail")
#: So much of a node's id is shown, as everywhere.
_NODE = 8
#: Cells of these columns are cut where a row has to stay on one line.
_CUT = frozenset({"place", "reason", "detail"})
_HOST_COLUMNS = ("attempt", "host", "node", "outcome", "detail")
_LINK_COLUMNS = ("slice", "replaces", "created", "ready after", "out of use", "reason", "gone")


@click.command(cls=Command)
@journal_file
@click.option("--at", "moment", type=Moment(), help="As it was then: ISO, time of today, epoch seconds, or 10m ago.")
@as_json
def status(file: Path, *, moment: float | None, as_json: bool) -> int:
    """Show the fleet as it is, or as it was: slices with state, place and hosts, and runs."""
    from sliceform.controller.cli.read import ending, is_over, looked_at, opened, within
    from sliceform.controller.report.past import fleet_at

    with opened(file) as journal:
        fleet = fleet_at(journal, looked_at(journal) if moment is None else within(journal, moment))
        said, over = ending(journal), moment is None and is_over(journal)
        if as_json:
            screen.show_json(fleet.as_dict() | {"driver": journal.writing()})
            return 0
    for part in fleet_view(fleet, said, over=over):
        screen.show(part)
    return 0


def fleet_view(fleet: PastFleet, said: str, *, over: bool = False, cut: bool = False) -> Iterator[Any]:
    """Yield what `status` and `watch` show of a fleet: sentences and tables.

    With `over` its driver is gone, and what it was doing is told in the past; with `cut` every row is on one line.
    """
    table: Callable[..., Any] = partial(screen.frame_table, cut=_CUT) if cut else screen.table
    counts = ", ".join(f"{fleet.counts[state]} {state.value}" for state in SliceState if state in fleet.counts)
    wish = ""
    if fleet.wish is not None:
        spares = f" + {fleet.wish.spares} spare" if fleet.wish.spares else ""
        wish = f"{'/'.join(map(str, fleet.wish.sizes))}{spares} wanted; "
    at = f"as it was at {when(fleet.at)}:" if over else f"{when(fleet.at)} "
    yield f"{at} {wish}{counts or 'no slices'}; {said}"
    if fleet.slices:
        yield table(
            _SLICE_COLUMNS,
            [
                (
                    row.id,
                    row.state,
                    when(row.since),
                    span(fleet.at - row.since),
                    row.place,
                    f"{sum(state in {'ready', 'running'} for state in row.hosts)}/{len(row.hosts)}",
                    row.reason,
                    row.detail,
                )
                for row in fleet.slices
            ],
        )
    more = sum(fleet.counts.values()) - len(fleet.slices)
    if more:
        yield f"and {more} more slices"
    ended = [run for run in fleet.runs if run.ended_at is not None]
    shown = [*ended[-_OVER:], *(run for run in fleet.runs if run.ended_at is None)]
    if shown:
        yield table(_RUN_COLUMNS, [_run_row(run, over=over) for run in shown])
    if len(ended) > _OVER:
        yield f"and {len(ended) - _OVER} runs that were over before"


@click.command(cls=Command)
@journal_file
@click.argument("run_id", required=False, metavar="[RUN]")
@as_json
def runs(file: Path, run_id: str | None, *, as_json: bool) -> int:
    """Show runs with their attempts, and how long the work stood still between them; with RUN also every host.

    Work stands still from the loss of the first slice, or the end of the first process, until the processes of the
    next attempt are alive on all hosts. A notice alone stops no work.
    """
    from sliceform.controller.cli.read import is_over, known, opened

    with opened(file) as journal:
        found = journal.runs(None if run_id is None else known(journal, run_id, "run"))
        over = is_over(journal)
    if as_json:
        screen.show_json([run.as_dict() for run in found])
    elif found:
        screen.show(screen.table(_RUN_COLUMNS, [_run_row(run, over=over) for run in found]), "")
        screen.show(screen.table(_ATTEMPT_COLUMNS, [row for run in found for row in _attempt_rows(run, over=over)]))
        if run_id is not None:
            rows = [(row.key, *_host(host)) for row in found[0].attempts for host in row.hosts]
            screen.show("", screen.table(_HOST_COLUMNS, rows))
    return _found(bool(found), "run")


@click.command(cls=Command)
@journal_file
@click.argument("slice_id", required=False, metavar="[SLICE]")
@as_json
def lineage(file: Path, slice_id: str | None, *, as_json: bool) -> int:
    """Show which slice replaced which, and why; with SLICE the line that it belongs to."""
    from sliceform.controller.cli.read import known, opened

    with opened(file) as journal:
        lines = journal.lines() if slice_id is None else [journal.lineage(known(journal, slice_id, "slice"))]
    found = [line for line in lines if line]
    if as_json:
        rows = [[link._asdict() | {"lost": link.lost and link.lost.as_dict()} for link in line] for line in found]
        screen.show_json(rows)
    elif found:
        screen.show(screen.table(_LINK_COLUMNS, [_link_row(link) for line in found for link in line]))
    return _found(bool(found), "slice")


@click.command(cls=Command)
@journal_file
@click.argument("key", required=False, metavar="[SLICE|HOST]")
@as_json
def durations(file: Path, key: str | None, *, as_json: bool) -> int:
    """Show how long slices and hosts were in each state, seconds, and the sums."""
    from sliceform.controller.cli.read import known, looked_at, opened

    with opened(file) as journal:
        name = None if key is None else known(journal, key, "slice", "host")
        spent = journal.durations(name, until=looked_at(journal))
    sums = {kind: spent.total(kind) for kind in ("slice", "host")}
    if as_json:
        screen.show_json({"records": spent.records, "sums": sums})
        return _found(bool(spent.records), "record")
    rows = [(name, *_by_state(states)) for name, states in spent.records.items() if key or "/" not in name]
    rows += [(f"all {kind}s", *_by_state(states)) for kind, states in sums.items()]
    if spent.records:
        screen.show(screen.table(("", *(state.value for state in SliceState), "in all"), rows))
    return _found(bool(spent.records), "record")


def _found(found: bool, what: str) -> int:  # noqa: FBT001 - private, clear at its calls
    if not found:
        click.echo(f"the journal has no {what}", err=True)
    return 0 if found else 1


def _run_row(run: RunStory, *, over: bool) -> tuple[Any, ...]:
    state = f"was {run.state}" if over and run.ended_at is None else run.state
    return run.id, state, len(run.attempts), span(run.stood_still_s), run.detail


def _attempt_rows(run: RunStory, *, over: bool) -> Iterator[tuple[Any, ...]]:
    pauses = {pause.after: pause for pause in run.pauses}
    for row in run.attempts:
        took = None if row.ended_at is None else row.ended_at - row.started_at
        pause = pauses.get(row.key)
        still = "" if pause is None else span(pause.seconds) or ("to the end" if over else "still does")
        yield (
            row.key,
            row.outcome or ("was running" if over else "running"),
            when(row.started_at),
            span(took),
            ", ".join(row.slices),
            still,
            row.detail,
        )


def _host(host: HostEnd) -> tuple[Any, ...]:
    return host.host, (host.node or "")[:_NODE], host.outcome, host.detail


def _link_row(link: Link) -> tuple[Any, ...]:
    ready = None if link.ready_at is None else link.ready_at - link.created_at
    lost = link.lost
    return (
        link.slice_id,
        link.replaces,
        when(link.created_at),
        span(ready),
        lost and when(lost.at),
        lost and f"{lost.reason} {lost.detail}".rstrip(),
        link.gone_at and when(link.gone_at),
    )


def _by_state(states: Mapping[str, float]) -> list[str]:
    return [*(f"{states[state]:.1f}" if state in states else "" for state in SliceState), f"{sum(states.values()):.1f}"]
