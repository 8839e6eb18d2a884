"""The command `replay`."""

from __future__ import annotations

from pathlib import Path

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, as_json
from sliceform.controller.cli.times import when


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@as_json
def replay(file: Path, *, as_json: bool) -> int:
    """Decide again what the fleet of a record decided, and say at which tick it would be otherwise.

    A record is the FILE that `SliceController(..., record=FILE)` writes. No cluster is needed, and none is touched.
    """
    from sliceform.controller.report.replay import replay_record

    found = replay_record(file)
    if as_json:
        rows = [one._asdict() | {"difference": one.difference and one.difference._asdict()} for one in found]
        screen.show_json(rows)
    for one in () if as_json else found:
        made_with = ", ".join(f"{name} {number}" for name, number in one.versions.items() if number)
        screen.show(f"{one.ticks} ticks agree with what was recorded ({made_with})")
        if one.difference is not None:
            tick, epoch = one.difference.tick, one.difference.epoch
            screen.show(f"tick {tick}, at {when(epoch)}, decides otherwise:", str(one.difference))
    return 1 if any(one.difference for one in found) else 0
