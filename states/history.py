"""The history: every change of every record, in order, with its cause."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sliceform.states.attempts import AttemptLog
from sliceform.states.errors import ForgottenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Change(NamedTuple):
    """One thing that happened to one record: a transition, or a note if it has no trigger."""

    #: Its number in the history, ascending from 1.
    seq: int
    #: The tick of the loop that made it; all changes of one tick share it.
    tick: int
    #: When, in seconds since the epoch.
    at: float
    #: What the record is: ``"slice"``, ``"host"`` or ``"run"``.
    kind: str
    #: The id of the slice, host or run.
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
        """The slice that it is about; None for a run."""
        if self.kind == "host":
            return self.key.rpartition("/")[0]
        return self.key if self.kind == "slice" else None

    def as_dict(self) -> dict[str, Any]:
        """Give the fields by name, ready for JSON."""
        return self._asdict()

    def __str__(self) -> str:
        """Give one line for people; the time of day is in UTC."""
        when = datetime.fromtimestamp(self.at, tz=UTC).strftime("%H:%M:%S.%f")[:-3]
        what = "note" if self.is_note else f"{self.source or '[*]'} -> {self.dest or '[*]'}"
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
    """Write changes for people, one line each."""
    return "\n".join(map(str, changes))


class _Window(NamedTuple):
    """What is kept, published as one value so that a reader never sees half of a trim."""

    #: The state of every record alive just before the first change that is kept.
    base: Mapping[str, str]
    #: The latest time of a change that was dropped; None if none was.
    base_at: float | None
    #: How many changes were dropped.
    dropped: int
    #: The changes that are kept; only ever appended to.
    changes: list[Change]


_seq_of = attrgetter("seq")
#: An attempt makes at least so many changes: its start and end, and those of a slice with one host.
_CHANGES_PER_ATTEMPT = 6


class History:
    """All changes, bounded, written by one thread and read by any without a lock.

    The changes are an append-only list. Readers take the window once and then copy or slice that
    list, and the writer appends to it or, to forget the oldest eighth, replaces the whole window:
    each of these is one operation under the interpreter's lock. The states that the forgotten
    changes led to are kept, so that `at` and replay stay right for every record still there.
    """

    def __init__(self, limit: int = 100_000) -> None:
        """Keep at most `limit` changes."""
        if limit < 1:
            raise ValueError(f"a history keeps at least one change, not {limit}")
        self._limit = limit
        self._chunk = max(1, limit // 8)
        self._last_seq = 0
        self._window = _Window({}, None, 0, [])
        #: The attempts of runs, beside the changes that tell of them.
        self.attempts = AttemptLog(max(1, limit // _CHANGES_PER_ATTEMPT))

    def append(
        self,
        *,
        tick: int,
        at: float,
        kind: str,
        key: str,
        trigger: str | None,
        source: str | None,
        dest: str | None,
        reason: str,
        detail: str = "",
        cause: str | None = None,
    ) -> Change:
        """Number and keep a new change. Only the writer thread may call this."""
        change = Change(self._last_seq + 1, tick, at, kind, key, trigger, source, dest, reason, detail, cause)
        self.record(change)
        return change

    def record(self, change: Change) -> None:
        """Keep a change that has its number already, as when a journal is read back."""
        if change.seq <= self._last_seq:
            raise ValueError(f"change {change.seq} cannot follow change {self._last_seq}")
        if len(self._window.changes) >= self._limit:
            self._trim()
        self._window.changes.append(change)
        self._last_seq = change.seq

    def story(self, *keys: str) -> Story:
        """Tell what happened to these records; a slice's story includes that of its hosts."""
        wanted = frozenset(keys)
        return Story(
            change
            for change in tuple(self._window.changes)
            if change.key in wanted or (change.kind == "host" and change.key.rpartition("/")[0] in wanted)
        )

    def since(self, seq: int) -> Story:
        """Give the changes that are kept and numbered above `seq`."""
        changes = self._window.changes
        return Story(changes[bisect_right(changes, seq, key=_seq_of) :])

    def at(self, time: float) -> dict[str, str]:
        """Give the state of every slice and host at that time, in seconds since the epoch.

        Records that had not come or had left are absent. A time before the oldest change that is
        kept is refused with `ForgottenError`.
        """
        window = self._window
        if window.base_at is not None and time < window.base_at:
            raise ForgottenError(
                f"the history no longer reaches back to {time:.3f}: {window.dropped} changes up to"
                f" {window.base_at:.3f} were dropped; keep more with History(limit=...)"
            )
        kept = tuple(window.changes)
        return _apply(window.base, (change for change in kept if change.at <= time))

    def window(self) -> tuple[dict[str, str], Story]:
        """Give the states before the oldest change that is kept, and all changes that are."""
        window = self._window
        return dict(window.base), Story(window.changes)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Give every change that is kept as a dictionary, ready for JSON."""
        return [change.as_dict() for change in tuple(self._window.changes)]

    @property
    def last_seq(self) -> int:
        """The number of the newest change; 0 if there is none."""
        return self._last_seq

    @property
    def dropped(self) -> int:
        """How many changes were forgotten because of the limit."""
        return self._window.dropped

    def __len__(self) -> int:
        """Count the changes that are kept."""
        return len(self._window.changes)

    def __iter__(self) -> Iterator[Change]:
        """Go through the changes that are kept at this moment, oldest first."""
        return iter(tuple(self._window.changes))

    def _trim(self) -> None:
        """Forget the oldest chunk, and remember which states it led to."""
        window = self._window
        gone, kept = window.changes[: self._chunk], window.changes[self._chunk :]
        latest = max(change.at for change in gone)
        if window.base_at is not None:
            latest = max(latest, window.base_at)
        base = _apply(window.base, gone)
        self._window = _Window(base, latest, window.dropped + len(gone), kept)


def _apply(base: Mapping[str, str], changes: Iterable[Change]) -> dict[str, str]:
    """Follow the transitions of slices and hosts from one picture of the fleet to the next."""
    states = dict(base)
    for change in changes:
        if change.trigger is None or change.kind == "run":
            continue
        if change.dest is None:
            states.pop(change.key, None)
        else:
            states[change.key] = change.dest
    return states
