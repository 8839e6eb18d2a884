"""The history of a fleet that has a journal: what memory has forgotten is read from the file."""

from __future__ import annotations

from pathlib import Path

import structlog

from sliceform.controller.errors import JournalError
from sliceform.controller.journal.reader import open_journal
from sliceform.states import ForgottenError, History, Story

log = structlog.get_logger(__name__)


class JournalHistory(History):
    """A `History` whose stories and states of a time reach back to the beginning of the journal."""

    def __init__(self, limit: int, path: Path) -> None:
        """Keep at most `limit` changes in memory."""
        super().__init__(limit)
        self._path = path

    def story(self, *keys: str) -> Story:
        """Tell what happened to these records; what cannot be read from the file is left out, and logged."""
        if not self.dropped:
            return super().story(*keys)
        _, kept = self.window()
        first = kept[0].seq if kept else self.last_seq + 1
        try:
            with open_journal(self._path) as journal:
                older = journal.story(*keys)
        except JournalError as error:
            log.warning("journal_unread", journal=str(self._path), cause=str(error))
            older = Story()
        wanted = frozenset(keys)
        newer = (change for change in kept if change.key in wanted or change.slice_id in wanted)
        return Story((*(change for change in older if change.seq < first), *newer))

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
