"""The story of a run: its attempts, and how long its work stood still between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sliceform.states.losses import is_loss
from sliceform.states.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sliceform.states.attempts import AttemptRecord
    from sliceform.states.changes import Change

#: What takes a slice out of an attempt.
_LEAVING = frozenset({"preempt", "drain"})
#: Outcomes of an attempt that are those of its run.
_LAST = frozenset({"succeeded", "cancelled"})


class Pause(NamedTuple):
    """A time in which the work of a run stood still, after one attempt and before the next. Seconds since the epoch."""

    #: The attempt that ended, ``<run>/<number>``.
    after: str
    #: The attempt that went on with the work; None if there is none yet.
    before: str | None
    #: When the first of its slices was lost or the first of its processes ended, whichever came first; a notice stops
    #: no work.
    stopped_at: float
    #: When the processes of the next attempt were alive on all hosts; None if they are not yet.
    resumed_at: float | None
    #: The first change that took a slice out of the attempt: a loss, a notice or a drain; None if none did.
    loss: Change | None

    @property
    def seconds(self) -> float | None:
        """How long it lasted; None if it is not over."""
        return None if self.resumed_at is None else max(0.0, self.resumed_at - self.stopped_at)


class RunStory(NamedTuple):
    """One run as a history knows it."""

    id: str
    #: ``waiting``, ``running``, or how it ended; ``unknown`` if what is kept does not say whether it did.
    state: str
    #: Why it is in that state, in a sentence.
    detail: str
    #: Seconds since the epoch; None if that is not kept.
    submitted_at: float | None
    #: None while it is not over, or if that is not kept.
    ended_at: float | None
    attempts: tuple[AttemptRecord, ...]
    pauses: tuple[Pause, ...]

    @property
    def stood_still_s(self) -> float:
        """How long its work stood still, all pauses together that are over, seconds."""
        return sum(pause.seconds or 0.0 for pause in self.pauses)

    def as_dict(self) -> dict[str, Any]:
        """Give everything by name, ready for JSON."""
        pauses = [
            pause._asdict() | {"seconds": pause.seconds, "loss": pause.loss and pause.loss.as_dict()}
            for pause in self.pauses
        ]
        attempts = [attempt.as_dict() for attempt in self.attempts]
        return self._asdict() | {"attempts": attempts, "pauses": pauses, "stood_still_s": self.stood_still_s}


def tell_run(
    name: str, notes: Sequence[Change], attempts: tuple[AttemptRecord, ...], members: Sequence[Change]
) -> RunStory:
    """Tell of a run from its notes, its attempts, and what happened to the slices that took part."""
    submitted = next((note.at for note in notes if note.reason == Reason.RUN_SUBMITTED), None)
    end = next((note for note in notes if note.reason == Reason.RUN_FINISHED), None)
    last = attempts[-1] if attempts else None
    ended_at = None
    if end is not None:
        state, detail, ended_at = end.dest or "", end.detail.removeprefix(f"{end.dest}: "), end.at
    elif last is None:
        state, detail = "waiting", "no attempt has begun"
    elif last.ended_at is None:
        state, detail = "running", f"attempt {last.number} on {', '.join(last.slices)}"
    elif last.outcome in _LAST:
        state, detail, ended_at = str(last.outcome), last.detail, last.ended_at
    else:
        # Notes are forgotten from the oldest on: where any is kept, one of its end would be, too.
        state = "waiting" if notes else "unknown"
        detail = f"attempt {last.number} {last.outcome}: {last.detail}"
    pauses = tuple(_pauses(attempts, members, over=ended_at is not None or state == "unknown"))
    return RunStory(name, state, detail, submitted, ended_at, attempts, pauses)


def _pauses(attempts: Sequence[AttemptRecord], members: Sequence[Change], *, over: bool) -> Iterator[Pause]:
    alive: dict[str, dict[str, float]] = {}
    leaving: dict[str, list[Change]] = {}
    stops: dict[str, list[Change]] = {}
    for change in members:
        if change.kind == "host" and change.trigger == "start":
            alive.setdefault(change.detail, {})[change.key] = change.at
        elif change.kind == "slice" and change.trigger in _LEAVING:
            leaving.setdefault(change.key, []).append(change)
        if change.slice_id is not None and _stops(change):
            stops.setdefault(change.slice_id, []).append(change)
    following: list[AttemptRecord | None] = [*attempts[1:], None]
    for attempt, after in zip(attempts, following, strict=False):
        if attempt.ended_at is None or (after is None and over):
            continue
        loss, stop = (_first(attempt, found) for found in (leaving, stops))
        stopped_at = attempt.ended_at if stop is None else stop.at
        yield Pause(attempt.key, after and after.key, stopped_at, after and _resumed(after, alive), loss)


def _stops(change: Change) -> bool:
    """Whether the work of an attempt, or one process of it, ended with this change."""
    return is_loss(change) or change.trigger == "finish" or change.reason == Reason.WORK_ENDED


def _first(attempt: AttemptRecord, found: Mapping[str, Sequence[Change]]) -> Change | None:
    """Give the first change of the attempt's slices that came while it went on."""
    assert attempt.ended_at is not None
    during = (
        change
        for member in attempt.slices
        for change in found.get(member, ())
        if attempt.started_at <= change.at <= attempt.ended_at
    )
    return min(during, key=lambda change: (change.at, change.seq), default=None)


def _resumed(attempt: AttemptRecord, alive: dict[str, dict[str, float]]) -> float | None:
    """Say when the processes of an attempt were alive on all hosts; if that was never seen, when it began."""
    seen = alive.get(attempt.key, {})
    if len(seen) == len(attempt.hosts):
        return max(seen.values())
    return None if attempt.ended_at is None else attempt.started_at
