"""All commands, in the order in which the help lists them."""

from __future__ import annotations

import click

from sliceform.controller.cli.changes import history, story
from sliceform.controller.cli.demo_command import demo
from sliceform.controller.cli.fleet import durations, lineage, runs, status
from sliceform.controller.cli.machines import diagram, explain
from sliceform.controller.cli.parts import Group
from sliceform.controller.cli.pictures import serve, timeline
from sliceform.controller.cli.replay import replay
from sliceform.controller.cli.watch import watch
from sliceform.controller.cli.why import check, why

#: A new command goes in here.
_COMMANDS = (
    demo,
    why,
    status,
    watch,
    history,
    story,
    runs,
    lineage,
    durations,
    timeline,
    serve,
    check,
    replay,
    diagram,
    explain,
)


@click.group(cls=Group, invoke_without_command=True)
@click.option("--version", is_flag=True, help="Print the version.")
@click.pass_context
def app(context: click.Context, *, version: bool) -> int:
    """Keep a fleet of accelerator slices alive on Ray and run functions on all of their hosts.

    A journal is the FILE that `SliceController(..., journal=FILE)` writes.
    """
    if context.invoked_subcommand is not None:
        return 0
    if version:
        click.echo(_version())
        return 0
    click.echo(context.get_help(), err=True)
    return 2


for _command in _COMMANDS:
    app.add_command(_command)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"sliceform {version('sliceform')}"
    except PackageNotFoundError:
        return "sliceform, not installed"
