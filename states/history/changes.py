"""One change of one record, and changes in order: what a history is made of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sliceform.states.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_DAY_S = 86_400
_OF_SLICES = frozenset({"slice", "host"})
#: Kinds of records that are part of another, whose id their own begins with.
_PARTS = frozenset({"host", "attempt"})


class Change(NamedTuple):
    """One thing that happened to one record: a transition, or a note if it has no trigger."""

    #: Its number in the history, ascending from 1.
    seq: int
    #: The tick of the loop that made it; all changes of one tick share it.
    tick: int
    #: When, in seconds since the epoch.
    at: float
    #: What it is about: ``"slice"``, ``"host"``, ``"run"``, ``"attempt"``, or ``"fleet"`` as a whole.
    kind: str
    #: The id of the slice, host, run or attempt; ``"fleet"``.
    key: str
    #: What moved it; None for a note.
    trigger: str | None
    #: The state it left; None on entry.
    source: str | None
    #: The state it came to; None on exit.
    dest: str | None
    #: Why, as a code of `Reason`.
    reason: str
    #: Why, in free text.
    detail: str = ""
    #: What brought it about, if that is another record: the replaced slice, the lost host.
    cause: str | None = None

    @property
    def is_note(self) -> bool:
        """Whether it tells of something that moved no state."""
        return self.trigger is None

    @property
    def slice_id(self) -> str | None:
        """The slice that it is about; None for a run, an attempt or the fleet."""
        return self.owner if self.kind in _OF_SLICES else None

    @property
    def owner(self) -> str:
        """The slice or the run whose story it belongs to."""
        return self.key.rpartition("/")[0] if self.kind in _PARTS else self.key

    @property
    def led_to(self) -> str:
        """The state it came to, or how it left: of a run or an attempt that is what people look for."""
        return self.dest or ("[*]" if self.kind in _OF_SLICES else self.trigger or "[*]")

    @property
    def ends_run(self) -> bool:
        """Whether a run is over with it; version 0.1.0 wrote that as a note."""
        return self.kind == "run" and self.reason == Reason.RUN_FINISHED

    @property
    def moves_slice(self) -> bool:
        """Whether it moved a slice or a host."""
        return self.trigger is not None and self.kind in _OF_SLICES

    def as_dict(self) -> dict[str, Any]:
        """Give the fields by name, ready for JSON."""
        return self._asdict()

    def __str__(self) -> str:
        """Give one line for people; the time of day is in UTC."""
        return self.line()

    def line(self, *, dated: bool = False) -> str:
        """Give one line for people, in UTC, with the date or only the time of day."""
        when = datetime.fromtimestamp(self.at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S.%f" if dated else "%H:%M:%S.%f")[:-3]
        what = "note" if self.is_note else f"{self.source or '[*]'} -> {self.led_to}"
        line = f"{when}  {self.key}  {what}  ({self.reason})"
        if self.detail:
            line += f" {self.detail}"
        return f"{line}  <- {self.cause}" if self.cause else line


class Story(tuple[Change, ...]):
    """Changes in order, which print as one line each."""

    __slots__ = ()

    def __str__(self) -> str:
        """Give the lines."""
        return format_story(self)


def format_story(changes: Iterable[Change]) -> str:
    """Write changes for people, one line each; with the date if they are of several days (in UTC)."""
    rows = list(changes)
    dated = len({int(change.at // _DAY_S) for change in rows}) > 1
    return "\n".join(change.line(dated=dated) for change in rows)


def follow(base: Mapping[str, str], changes: Iterable[Change]) -> dict[str, str]:
    """Follow the transitions of slices and hosts from one picture of the fleet, states by id, to the next."""
    states = dict(base)
    for change in changes:
        if not change.moves_slice:
            continue
        if change.dest is None:
            states.pop(change.key, None)
        else:
            states[change.key] = change.dest
    return states
