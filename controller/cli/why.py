"""Commands that judge: `why` something is as it is, and `check` that all that happened was legal."""

from __future__ import annotations

from pathlib import Path

import click

from sliceform.controller.cli import screen
from sliceform.controller.cli.parts import Command, as_json, journal_file


@click.command(cls=Command)
@journal_file
@click.argument("key", required=False, metavar="[SLICE|RUN]")
@as_json
def why(file: Path, key: str | None, *, as_json: bool) -> int:
    """Explain the fleet, a slice or a run: what it waits for, what was lost and how that was learnt, what replaced it.

    Without SLICE or RUN: every slice that is not ready, and every run that waits or was interrupted.
    """
    from sliceform.controller.cli.read import ending, known, opened, view_of
    from sliceform.controller.report.explain import explain_fleet, explain_run, explain_slice
    from sliceform.controller.report.known import Known

    with opened(file) as journal:
        look, said, past = view_of(journal), ending(journal), Known(journal)
        if key is None:
            wishes = journal.wishes()
            wanted = wishes[-1].sizes[-1] + wishes[-1].spares if wishes else None
            fleet = explain_fleet(past, look, wanted)
            answer, text = (
                fleet.as_dict() | {"losses": [loss.as_dict() for loss in journal.losses()]},
                f"{said}\n{fleet}",
            )
        else:
            key = known(journal, key)
            (*_, told) = journal.runs(key) or (None,)
            one = explain_slice(past, key.partition("/")[0], look) if told is None else None
            one = one or explain_run(past, key, look)
            losses = [loss.as_dict() for loss in journal.losses() if loss.slice_id == key.partition("/")[0]]
            answer, text = one.as_dict() | {"losses": losses, "run": told and told.as_dict()}, str(one)
    if as_json:
        screen.show_json(answer)
    else:
        screen.show(text)
    return 0


@click.command(cls=Command)
@journal_file
@as_json
def check(file: Path, *, as_json: bool) -> int:
    """Read every page of FILE, and replay all that happened through the transition tables; name what does not fit."""
    from sliceform.controller.cli.read import ending, opened

    with opened(file) as journal:
        journal.check_file()
        violations, count, dropped, said = journal.violations(), len(journal), journal.dropped, ending(journal)
    if as_json:
        screen.show_json({"changes": count, "dropped": dropped, "violations": list(violations)})
    else:
        before = f", {dropped} were dropped before" if dropped else ""
        screen.show(*violations, f"{count} changes replayed{before}: {len(violations)} violations; {said}")
    return 1 if violations else 0
