"""Tell of every attempt twice, as it began and as it ended, though the history keeps each only as it stands now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sliceform.states.attempts import AttemptRecord


class AttemptSteps:
    """Remembers whose beginning has been told."""

    def __init__(self, told: Iterable[AttemptRecord] = ()) -> None:
        """Take the attempts whose beginning is not to be told any more."""
        self._open = {attempt.key for attempt in told if attempt.ended_at is None}

    def of(self, attempts: Iterable[AttemptRecord]) -> Iterator[AttemptRecord]:
        """Give the beginning of those that were not known, and the end of those that have ended."""
        for attempt in attempts:
            if attempt.key not in self._open:
                self._open.add(attempt.key)
                yield _as_begun(attempt)
            if attempt.ended_at is not None:
                self._open.discard(attempt.key)
                yield attempt


def _as_begun(attempt: AttemptRecord) -> AttemptRecord:
    hosts = tuple(host._replace(outcome=None, detail="") for host in attempt.hosts)
    return attempt._replace(hosts=hosts, ended_at=None, outcome=None, detail="")
