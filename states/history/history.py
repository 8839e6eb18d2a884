"""The history: every change of every record, in order, with its cause."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from sliceform.states.errors import ForgottenError
from sliceform.states.history.attempt_log import AttemptLog
from sliceform.states.history.changes import Change, Story, follow, format_story
from sliceform.states.history.queries import HistoryQueries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sliceform.states.history.attempt_log import AttemptRecord

__all__ = ["Change", "History", "Story", "format_story"]


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


class History(HistoryQueries):
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
        self.attempts: AttemptLog = AttemptLog(max(1, limit // _CHANGES_PER_ATTEMPT))

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

    def resume(self, last_seq: int, latest_at: float, attempts: Iterable[AttemptRecord]) -> None:
        """Go on after changes that are kept elsewhere, up to this number and time, and left no record behind.

        Raises:
            ValueError: something was recorded already.

        """
        if self._window.changes:
            raise ValueError("a history that has changes cannot resume another one")
        self._last_seq = last_seq
        self._window = _Window({}, latest_at if last_seq else None, last_seq, [])
        self.attempts.restore(attempts)

    def story(self, *keys: str) -> Story:
        """Tell what happened to these records, to the hosts of slices and to the attempts of runs."""
        wanted = frozenset(keys)
        return Story(change for change in tuple(self._window.changes) if change.key in wanted or change.owner in wanted)

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
        return follow(window.base, (change for change in kept if change.at <= time))

    def window(self) -> tuple[dict[str, str], Story]:
        """Give the states before the oldest change that is kept, and all changes that are."""
        window = self._window
        return dict(window.base), Story(window.changes)

    @property
    def last_seq(self) -> int:
        """The number of the newest change; 0 if there is none."""
        return self._last_seq

    @property
    def dropped(self) -> int:
        """How many changes were forgotten because of the limit."""
        return self._window.dropped

    @property
    def forgotten_until(self) -> float | None:
        """The latest time of a change that was forgotten, seconds since the epoch; None if none was."""
        return self._window.base_at

    def _trim(self) -> None:
        """Forget the oldest chunk, and remember which states it led to."""
        window = self._window
        gone, kept = window.changes[: self._chunk], window.changes[self._chunk :]
        latest = max(change.at for change in gone)
        if window.base_at is not None:
            latest = max(latest, window.base_at)
        base = follow(window.base, gone)
        self._window = _Window(base, latest, window.dropped + len(gone), kept)
