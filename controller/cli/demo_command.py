"""The command `demo`."""

from __future__ import annotations

from pathlib import Path

import click

from sliceform.controller.cli.parts import Command, as_json

#: Fewer steps of the demo's training are over before a host can be killed in their midst.
_FEWEST_STEPS = 100
_MOST_SLICES = 8
#: Packages that are looked for before anything is started.
_NEEDS = ("jax", "numpy", "ray", "sklearn")


@click.command(cls=Command)
@click.option(
    "--slices",
    type=click.IntRange(1, _MOST_SLICES),
    default=2,
    show_default=True,
    metavar="N",
    help="Slices of the fleet.",
)
@click.option("--hosts", type=click.Choice(["1", "2", "4"]), default="2", show_default=True, help="Hosts of a slice.")
@click.option(
    "--steps",
    type=click.IntRange(_FEWEST_STEPS, 1_000_000),
    default=400,
    show_default=True,
    metavar="N",
    help="Steps of the training.",
)
@click.option("--no-fault", is_flag=True, help="Kill no host.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the network, the data and the choice of the host.",
)
@click.option("--journal", type=click.Path(path_type=Path), metavar="FILE", help="Keep the fleet's journal there.")
@as_json
def demo(*, slices: int, hosts: str, steps: int, no_fault: bool, seed: int, journal: Path | None, as_json: bool) -> int:
    """Train on a fleet that loses a slice and gets it back.

    Starts Ray nodes on this machine that look like TPU hosts, and a fleet on them that trains a small network with JAX
    on all hosts. In its midst a host is killed; the fleet replaces the slice, and the training goes on from its
    checkpoint. Exit code 0 only if all of that happened.
    """
    from importlib.util import find_spec

    absent = [package for package in _NEEDS if find_spec(package) is None]
    if absent:
        click.echo(f"the demo needs {' and '.join(absent)}: pip install 'sliceform[demo]'", err=True)
        return 1
    if journal is not None:
        _see_usable(journal)
    from sliceform.controller.cli.demo.demo import Options, show

    return show(Options(slices, int(hosts), steps, fault=not no_fault, seed=seed, journal=journal), as_json=as_json)


def _see_usable(journal: Path) -> None:
    """See that a fleet can write its journal there; it would find out itself, but only when all nodes are up.

    Raises:
        JournalError: it cannot.

    """
    from sliceform.controller.errors import JournalInUseError
    from sliceform.controller.follow.journal import open_journal
    from sliceform.controller.follow.journal.schema import check_place

    check_place(journal, write=True)
    if not journal.exists() or journal.stat().st_size == 0:
        return
    with open_journal(journal) as kept:
        if kept.writing() == "running":
            message = f"{journal} is written by another fleet: close that one first, or choose another file"
            raise JournalInUseError(message)
