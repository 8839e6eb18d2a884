"""Open the journal that a command names, and find in it what the command asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sliceform.controller.cli.parts import nearest
from sliceform.controller.cli.times import when
from sliceform.controller.errors import JournalMissingError
from sliceform.controller.follow.journal.reader import Journal, open_journal
from sliceform.controller.report.look import Look
from sliceform.states import Selection, Story

#: How often a journal that is being written is looked at, seconds.
_LOOK_S = 0.2
#: Which commands tell of what, for who asked another one.
_TOLD_BY = {
    "slice": "`sliceform story` or `sliceform lineage`",
    "host": "`sliceform story` or `sliceform durations`",
    "run": "`sliceform runs` or `sliceform story`",
    "fleet": "`sliceform status` or `sliceform story`",
}


@contextmanager
def opened(file: Path) -> Iterator[Journal]:
    """Open the journal; a file that is not there is answered with one that may have been meant.

    Raises:
        JournalError: it cannot be read.

    """
    try:
        journal = open_journal(file)
    except JournalMissingError as error:
        beside = file.parent.iterdir() if file.parent.is_dir() and not file.is_dir() else ()
        raise JournalMissingError(f"{error}{nearest(file.name, (one.name for one in beside))}") from error
    with journal:
        yield journal


def known(journal: Journal, key: str, *kinds: str) -> str:
    """Return the id of a slice, host or run that the journal knows; with kinds, of one of these.

    Raises:
        click.BadParameter: it knows none of that name, and says which is near; or it is something else, and says what.

    """
    names = journal.names()
    owner = key.rpartition("/")[0] or key
    if owner in names and (owner == key or any(change.key == key for change in journal.story(owner))):
        kind = "host" if "/" in key else journal.story(key)[0].kind
        if kinds and kind not in kinds:
            raise click.BadParameter(f"{key} is a {kind}: see {_TOLD_BY[kind]}")
        return key
    hosts = dict.fromkeys(change.key for change in journal.story(owner)) if owner in names else ()
    few = f"; it has {', '.join(names[-8:])}" if names else "; it has none"
    raise click.BadParameter(f"the journal knows no {key!r}{nearest(key, [*names, *hosts]) or few}")


def within(journal: Journal, moment: float | None) -> float:
    """Return a time that the journal can tell of, by default now.

    Raises:
        click.BadParameter: it is before the first change, or has not come.

    """
    now = time.time()
    if moment is None:
        return now
    span = journal.span()
    if span is None or moment < span[0]:
        begin = "it is empty" if span is None else f"it begins at {when(span[0])}"
        raise click.BadParameter(f"the journal cannot tell of {when(moment)}: {begin}")
    if moment > max(now, span[1]):
        raise click.BadParameter(f"the journal cannot tell of {when(moment)}: that has not come; it is {when(now)}")
    return moment


def looked_at(journal: Journal) -> float:
    """Return the time up to which what is there goes on: now while it is written, else its last change's."""
    span = journal.span()
    return time.time() if span is None or journal.writing() == "running" else span[1]


def view_of(journal: Journal) -> Look:
    """Return how to explain what the journal knows: as of now while it is written, else of what was."""
    return Look(looked_at(journal), when, over=is_over(journal))


def is_over(journal: Journal) -> bool:
    """Whether the last driver is gone: nothing of what it left goes on."""
    return journal.writing() in {"closed", "gone"}


def followed(journal: Journal, seq: int, selection: Selection) -> Iterator[Story]:
    """Yield what comes after a change, as it comes, until nobody writes the journal any more."""
    while True:
        writing = journal.writing() == "running"
        changes = journal.since(seq)
        seq = changes[-1].seq if changes else seq
        yield Story(change for change in changes if selection.takes(change))
        if not writing:
            return
        time.sleep(_LOOK_S)


def ending(journal: Journal) -> str:
    """Say in a sentence how it stands with the driver."""
    drivers = journal.drivers()
    state = journal.writing()
    if state == "none":
        return "no driver has written this journal"
    driver = drivers[-1]
    who = f"the driver of {driver.label} (process {driver.pid} on {driver.host})"
    if state == "closed":
        return f"{who} closed at {when(driver.closed_at or 0.0)}"
    return f"{who} is running" if state == "running" else f"{who} ended without closing"
