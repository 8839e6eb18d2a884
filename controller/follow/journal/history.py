"""The history of a fleet that has a journal: what memory has forgotten is read from the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from operator import methodcaller
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import structlog

from sliceform.controller.errors import JournalError
from sliceform.controller.follow.journal.reader import Journal, open_journal
from sliceform.states import (
    AttemptLog,
    AttemptRecord,
    ForgottenError,
    History,
    HistoryQueries,
    Selection,
    Story,
)
from sliceform.states.history.queries import AttemptSource

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")
P = ParamSpec("P")

#: An attempt makes at least so many changes: as many attempts are kept as belong to the changes.
_CHANGES_PER_ATTEMPT = 6


def _asked(
    question: Callable[Concatenate[HistoryQueries, P], Answer],
) -> Callable[Concatenate[JournalHistory, P], Answer]:
    """Put a question to all that memory and file know at one moment."""

    @wraps(question)
    def ask(self: JournalHistory, /, *args: P.args, **named: P.kwargs) -> Answer:
        put: Callable[[HistoryQueries], Answer] = methodcaller(question.__name__, *args, **named)
        return self._ask(put)

    return ask


class JournalHistory(History):
    """A `History` that answers from the beginning of the journal on; when that cannot be read, from memory alone.

    Followers and the loop read no file: iteration, length, `window` and `since` tell of what memory keeps.
    """

    def __init__(self, limit: int, path: Path) -> None:
        """Keep at most `limit` changes in memory."""
        super().__init__(limit)
        self._path = path
        self.attempts: _Attempts = _Attempts(max(1, limit // _CHANGES_PER_ATTEMPT), path)

    def at(self, time: float) -> dict[str, str]:
        """Give the state of every slice and host at that time.

        Raises:
            ForgottenError: the file does not reach back so far either.
            JournalError: the file cannot be read.

        """
        try:
            return super().at(time)
        except ForgottenError:
            with open_journal(self._path) as journal:
                return journal.at(time)

    # Asked of memory and file as one; the words are those of `HistoryQueries`.
    story = _asked(HistoryQueries.story)
    notes = _asked(HistoryQueries.notes)
    lineage = _asked(HistoryQueries.lineage)
    lines = _asked(HistoryQueries.lines)
    losses = _asked(HistoryQueries.losses)
    loss = _asked(HistoryQueries.loss)
    runs = _asked(HistoryQueries.runs)
    durations = _asked(HistoryQueries.durations)
    violations = _asked(HistoryQueries.violations)
    as_dicts = _asked(HistoryQueries.as_dicts)

    def _select(self, selection: Selection, limit: int | None) -> Story:
        return self._ask(lambda history: history.select(**selection._asdict(), limit=limit))

    def _ask(self, question: Callable[[HistoryQueries], Answer]) -> Answer:
        """Ask memory if it has everything, else the file and what memory has beyond its end."""
        # Looked at before the file: what memory forgets meanwhile is then in one of the two.
        base, changes = self.window()
        if self.dropped:
            try:
                with open_journal(self._path) as journal, journal.reading():
                    return question(_Joined(self, base, changes, journal))
            except JournalError as error:
                _warn_unread(self._path, error)
        return question(_Memory(self, base, changes))


class _Attempts(AttemptLog):
    """The attempts of runs; those that memory has forgotten are read from the file."""

    def __init__(self, limit: int, path: Path) -> None:
        super().__init__(limit)
        self._path = path

    def of(self, run: str | None = None) -> tuple[AttemptRecord, ...]:
        if len(self._kept) < self._limit:
            return super().of(run)
        try:
            with open_journal(self._path) as journal:
                return self.after(journal.attempts.of(run), run)
        except JournalError as error:
            _warn_unread(self._path, error)
            return super().of(run)

    def after(self, written: Iterable[AttemptRecord], run: str | None) -> tuple[AttemptRecord, ...]:
        """Give what was written before the oldest one in memory, and then memory's."""
        kept = super().of()
        known = {attempt.key for attempt in kept}
        older = (attempt for attempt in written if attempt.key not in known)
        return (*older, *(attempt for attempt in kept if run in {None, attempt.run}))


class _Memory(HistoryQueries):
    """What memory keeps at one moment."""

    def __init__(self, history: JournalHistory, base: Mapping[str, str], changes: Story) -> None:
        self._history = history
        self._base = base
        self._changes = changes
        self.attempts: AttemptSource = history.attempts

    def window(self) -> tuple[dict[str, str], Story]:
        return dict(self._base), self._changes

    def at(self, time: float) -> dict[str, str]:
        return self._history.at(time)

    def since(self, seq: int) -> Story:
        return Story(change for change in self if change.seq > seq)

    @property
    def last_seq(self) -> int:
        return self._history.last_seq

    @property
    def dropped(self) -> int:
        return self._history.dropped


class _Joined(_Memory):
    """The file, and what memory has beyond its end."""

    def __init__(self, history: JournalHistory, base: Mapping[str, str], changes: Story, journal: Journal) -> None:
        super().__init__(history, base, changes)
        end = journal.last_seq
        self._whole = not changes or changes[0].seq <= end + 1
        self._journal = journal
        self._newer = [change for change in changes if change.seq > end]
        self.attempts = _JoinedAttempts(history.attempts, journal)

    def window(self) -> tuple[dict[str, str], Story]:
        if not self._whole:
            # What lies between the file and memory is lost: replay can only begin after it.
            return super().window()
        base, written = self._journal.window()
        return base, Story((*written, *self._newer))

    def story(self, *keys: str) -> Story:
        wanted = frozenset(keys)
        newer = (change for change in self._newer if change.key in wanted or change.owner in wanted)
        return Story((*self._journal.story(*keys), *newer))

    def _select(self, selection: Selection, limit: int | None) -> Story:
        newer = [change for change in self._newer if selection.takes(change)]
        if limit is not None:
            newer = newer[len(newer) - min(limit, len(newer)) :]
            limit -= len(newer)
        return Story((*self._journal.select(**selection._asdict(), limit=limit), *newer))

    def _creations(self) -> Mapping[str, str | None]:
        newer = (change for change in self._newer if change.trigger == "create" and change.kind == "slice")
        return {**self._journal.creations(), **{change.key: change.cause for change in newer}}


class _JoinedAttempts(NamedTuple):
    """The attempts of the file and of memory."""

    log: _Attempts
    journal: Journal

    def of(self, run: str | None = None) -> tuple[AttemptRecord, ...]:
        return self.log.after(self.journal.attempts.of(run), run)


def _warn_unread(path: Path, error: JournalError) -> None:
    log.warning("journal_unread", journal=str(path), cause=str(error))
