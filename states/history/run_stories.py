"""The story of a run: its attempts, and how long its work stood still between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sliceform.states.history.losses import is_loss
from sliceform.states.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sliceform.states.history.attempt_log import AttemptRecord
    from sliceform.states.history.changes import Change

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


class Traces(NamedTuple):
    """What the stories of slices tell of the attempts that they took part in; made once for many runs."""

    #: By attempt: when its process was alive, by host.
    alive: dict[str, dict[str, float]]
    #: By attempt: the first change with which a process of it ended.
    ended: dict[str, Change]
    #: By slice: what took it out of an attempt, and what lost it.
    leaving: dict[str, list[Change]]

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Traces:
        """Find them."""
        traces = cls({}, {}, {})
        for change in changes:
            if change.kind == "host" and change.trigger == "start":
                traces.alive.setdefault(change.detail, {})[change.key] = change.at
            elif (change.kind == "host" and change.trigger == "finish") or change.reason == Reason.WORK_ENDED:
                first = traces.ended.setdefault(change.detail, change)
                if change.at < first.at:
                    traces.ended[change.detail] = change
            elif change.kind == "slice" and (change.trigger in _LEAVING or is_loss(change)):
                traces.leaving.setdefault(change.key, []).append(change)
        return traces


def tell_runs(
    notes: Iterable[Change], attempts: Iterable[AttemptRecord], story: Callable[..., Iterable[Change]]
) -> tuple[RunStory, ...]:
    """Tell of all runs that these notes and attempts are about: those without a note first, then as they were noted.

    `story` tells what happened to some slices; it is asked at most once.
    """
    tried: dict[str, list[AttemptRecord]] = {}
    for attempt in attempts:
        tried.setdefault(attempt.run, []).append(attempt)
    noted: dict[str, list[Change]] = {}
    for note in notes:
        noted.setdefault(note.key, []).append(note)
    names = [*(name for name in tried if name not in noted), *noted]
    paused = [attempt for rows in tried.values() if len(rows) > 1 or rows[-1].ended_at is not None for attempt in rows]
    members = {member for attempt in paused for member in attempt.slices}
    traces = Traces.of(story(*members) if members else ())
    return tuple(tell_run(name, noted.get(name, ()), tuple(tried.get(name, ())), traces) for name in names)


def tell_run(name: str, notes: Sequence[Change], attempts: tuple[AttemptRecord, ...], traces: Traces) -> RunStory:
    """Tell of a run from its notes, its attempts, and what happened to the slices that took part."""
    submitted = next((note.at for note in notes if note.reason == Reason.RUN_SUBMITTED), None)
    end = next((note for note in notes if note.reason == Reason.RUN_FINISHED), None)
    last = attempts[-1] if attempts else None
    ended_at = None
    if end is not None:
        state, ended_at = end_of_run(end), end.at
        detail = end.detail.removeprefix(f"{state}: ")
    elif last is None:
        state, detail = "waiting", "no attempt has begun"
    elif last.ended_at is None:
        state, detail = "running", f"attempt {last.number} on {', '.join(last.slices)}"
    elif last.outcome is None:
        state, detail = "running", f"attempt {last.number} ended; what it is charged to is not known yet"
    elif last.outcome in _LAST:
        state, detail, ended_at = str(last.outcome), last.detail, last.ended_at
    else:
        # Notes are forgotten from the oldest on: where any is kept, one of its end would be, too.
        state = "waiting" if notes else "unknown"
        detail = f"attempt {last.number} {last.outcome}: {last.detail}"
    pauses = tuple(_pauses(attempts, traces, over=ended_at is not None or state == "unknown"))
    return RunStory(name, state, detail, submitted, ended_at, attempts, pauses)


def end_of_run(change: Change) -> str:
    """Say how a run ended, from the change that tells of its end; version 0.1.0 wrote that as a note."""
    return change.trigger or change.dest or ""


def _pauses(attempts: Sequence[AttemptRecord], traces: Traces, *, over: bool) -> Iterator[Pause]:
    following: list[AttemptRecord | None] = [*attempts[1:], None]
    for attempt, after in zip(attempts, following, strict=False):
        if attempt.ended_at is None or (after is None and over):
            continue
        left = sorted(_during(attempt, attempt.ended_at, traces), key=lambda change: (change.at, change.seq))
        loss = next((change for change in left if change.trigger in _LEAVING), None)
        stops = [change.at for change in left if is_loss(change)]
        ended = traces.ended.get(attempt.key)
        stopped_at = min([*stops, *([] if ended is None else [ended.at]), attempt.ended_at])
        yield Pause(attempt.key, after and after.key, stopped_at, after and _resumed(after, traces.alive), loss)


def _during(attempt: AttemptRecord, ended_at: float, traces: Traces) -> Iterator[Change]:
    """Yield what took slices out of an attempt, or lost them, while it went on."""
    for member in attempt.slices:
        for change in traces.leaving.get(member, ()):
            if attempt.started_at <= change.at <= ended_at:
                yield change


def _resumed(attempt: AttemptRecord, alive: Mapping[str, Mapping[str, float]]) -> float | None:
    """Say when the processes of an attempt were alive on all hosts; if that was never seen, when it began."""
    seen = alive.get(attempt.key, {})
    if len(seen) == len(attempt.hosts):
        return max(seen.values())
    return None if attempt.ended_at is None else attempt.started_at
