"""Tell of every attempt twice, as it began and as it ended, though the history keeps each only as it stands now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sliceform.states.history.attempt_log import AttemptRecord

#: So many are remembered: one that is told of late is among the newest.
_REMEMBERED = 10_000


class Once:
    """Remembers the newest keys, so that what goes with each happens once."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """Take those for which it has happened."""
        self._keys = dict.fromkeys(keys)

    def first(self, key: str) -> bool:
        """Whether this is the first time that this key comes."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > _REMEMBERED:
            del self._keys[next(iter(self._keys))]
        return True


class AttemptSteps:
    """Remembers whose beginning has been told."""

    def __init__(self, told: Iterable[AttemptRecord] = ()) -> None:
        """Take the attempts whose beginning is not to be told any more."""
        self._begun = Once(attempt.key for attempt in told)

    def of(self, attempts: Iterable[AttemptRecord]) -> Iterator[AttemptRecord]:
        """Give the beginning of those that were not known, and the end of those of which it is known how they ended."""
        for attempt in attempts:
            if self._begun.first(attempt.key):
                yield _as_begun(attempt)
            if attempt.outcome is not None:
                yield attempt


def _as_begun(attempt: AttemptRecord) -> AttemptRecord:
    hosts = tuple(host._replace(outcome=None, detail="") for host in attempt.hosts)
    return attempt._replace(hosts=hosts, ended_at=None, outcome=None, detail="")
