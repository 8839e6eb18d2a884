"""What is remembered of a run's attempts: who took part, when, and how each host ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class HostEnd(NamedTuple):
    """One host's part in an attempt."""

    #: The id of the host, ``<slice id>/<host rank>``.
    host: str
    #: The Ray node that it was on; None if that is not known.
    node: str | None
    #: ``returned``, ``raised``, ``crashed``, ``stopped``, ``lost`` or ``refused``; None if it has not ended, or nobody
    #: knows how.
    outcome: str | None = None
    #: The same in free text.
    detail: str = ""


class AttemptRecord(NamedTuple):
    """One attempt of a run, as it stands or as it ended."""

    #: The id of the run.
    run: str
    #: Counted from 1 within the run.
    number: int
    #: The slices that take part, by slice rank.
    slices: tuple[str, ...]
    #: By rank.
    hosts: tuple[HostEnd, ...]
    #: Seconds since the epoch.
    started_at: float
    #: None while it goes on.
    ended_at: float | None = None
    #: ``succeeded``, ``failed``, ``preempted``, ``cancelled`` or ``superseded``; None until it is judged.
    outcome: str | None = None
    #: Why it ended so, in a sentence.
    detail: str = ""

    @property
    def key(self) -> str:
        """Its name, ``<run>/<number>``."""
        return f"{self.run}/{self.number}"

    def as_dict(self) -> dict[str, Any]:
        """Give the fields by name, ready for JSON."""
        return {**self._asdict(), "hosts": [host._asdict() for host in self.hosts]}


class AttemptLog:
    """The last attempts, each as it was recorded last; written by one thread and read by any without a lock.

    Readers look through a copy of the values, which the interpreter makes in one step: they see one write or the next.
    """

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` attempts, the newest."""
        if limit < 1:
            raise ValueError(f"a log keeps at least one attempt, not {limit}")
        self._limit = limit
        self._revision = 0
        self._kept: dict[str, tuple[int, AttemptRecord]] = {}

    def record(self, attempt: AttemptRecord) -> None:
        """Keep an attempt, in the place of what was recorded of it before. Only the writer thread may call this."""
        self._revision += 1
        if attempt.key not in self._kept and len(self._kept) == self._limit:
            del self._kept[next(iter(self._kept))]
        self._kept[attempt.key] = self._revision, attempt

    def restore(self, attempts: Iterable[AttemptRecord]) -> None:
        """Begin with the newest of these, given in the order in which they began, in the place of what is kept."""
        newest = list(attempts)[-self._limit :]
        self._revision += 1
        self._kept = {attempt.key: (self._revision, attempt) for attempt in newest}

    def of(self, run: str | None = None) -> tuple[AttemptRecord, ...]:
        """Give the attempts of this run, or of all, in the order in which they began."""
        return tuple(attempt for _, attempt in list(self._kept.values()) if run in {None, attempt.run})

    def since(self, revision: int) -> tuple[int, tuple[AttemptRecord, ...]]:
        """Give the newest revision, and what was recorded after the given one, in the order in which it began."""
        fresh = [entry for entry in list(self._kept.values()) if entry[0] > revision]
        return max((entry[0] for entry in fresh), default=revision), tuple(attempt for _, attempt in fresh)
