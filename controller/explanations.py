"""Explain slices and runs from the history: what they wait for, what was lost, what replaced it, what stood still.

Pure: the same for a history in memory and in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from sliceform.controller.finding import Finding
from sliceform.controller.why import FleetWhy, Why
from sliceform.states import AttemptRecord, Change, HistoryQueries, LostSlice, Pause, Reason, RunStory, Story

#: How a time is written for people: seconds since the epoch to text.
When = Callable[[float], str]
#: Notes on what holds a slice up, with the code that they are found under.
_TROUBLES: Mapping[str, str] = {
    Reason.EFFECT_FAILED: "effect_failed",
    Reason.QUARANTINED: "avoided",
    Reason.STUCK: "stuck",
}
#: At most so many of them are told, the newest.
_TOLD = 3
#: Of runs that are over, and were interrupted or failed, so many are told, the newest.
_OVER = 5
_WAITING = frozenset({"pending", "placed"})
_READY = frozenset({"ready", "running"})
_DOCS = {reason.value: reason.doc for reason in Reason}


def utc(time: float) -> str:
    """Write a time of day in UTC, to the millisecond."""
    return datetime.fromtimestamp(time, tz=UTC).strftime("%H:%M:%S.%f")[:-3]


def explain_slice(history: HistoryQueries, slice_id: str, now: float, when: When = utc) -> Why:
    """Explain a slice; `now` is the time that it is looked at, epoch seconds.

    Its state is `unknown` if the history has forgotten how it came to it.
    """
    story = history.story(slice_id)
    own = [change for change in story if change.key == slice_id]
    moves = [change for change in own if not change.is_note]
    if not moves:
        return Why(slice_id, "unknown", f"what {slice_id} went through was forgotten", tuple(_troubles(own)))
    last = moves[-1]
    state = last.dest or "gone"
    since = f"since {_span(now - last.at)}" if last.dest else f"since {when(last.at)}"
    summary = f"{slice_id} is {state} {since} ({last.reason})" + (f": {last.detail}" if last.detail else "")
    findings: list[Finding] = []
    if state in _WAITING:
        findings.append(Finding("waiting", _waits_for(slice_id, state, story)))
        findings += _avoided(history, moves[0])
    findings += _troubles(own)
    if moves[0].trigger == "create" and moves[0].cause:
        findings.append(Finding("replaces", f"it stands in for {moves[0].cause}", moves[0].cause))
    for change in moves:
        if change.trigger == "preempt":
            findings += tell_loss(history.loss(change), when)
    return Why(slice_id, state, summary, tuple(findings))


def explain_run(history: HistoryQueries, run: str, when: When = utc, waits_for: str = "") -> Why:
    """Explain a run that the history knows: every interruption, and what it waits for, if somebody knows better."""
    (told,) = history.runs(run)
    count = len(told.attempts)
    summary = f"{run} {_is(told)} after {count} attempt{'s' * (count != 1)}"
    if told.detail:
        summary += f": {told.detail}"
    findings: list[Finding] = []
    if told.state == "waiting":
        findings.append(Finding("waiting", waits_for or "it waits for ready slices that are free"))
    if told.state == "running":
        findings += _held_up(history, told.attempts[-1])
    pauses = {pause.after: pause for pause in told.pauses}
    for attempt in told.attempts:
        if attempt.outcome in {None, "succeeded"}:
            continue
        text = f"attempt {attempt.number} {attempt.outcome} at {when(attempt.ended_at or 0.0)}: {attempt.detail}"
        findings.append(Finding("attempt_ended", text, attempt.key))
        pause = pauses.get(attempt.key)
        if pause is not None:
            findings += _interruption(history, pause, when)
    if len(told.pauses) > 1:
        findings.append(Finding("stood_still", f"it stood still for {_span(told.stood_still_s)} in all", run))
    return Why(run, told.state, summary, tuple(findings))


def explain_fleet(history: HistoryQueries, now: float, when: When = utc, wanted: int | None = None) -> FleetWhy:
    """Explain the fleet as the history leaves it: slices that are not ready, and runs that wait or were interrupted."""
    states = {key: state for key, state in history.at(float("inf")).items() if "/" not in key}
    ready = sum(state in _READY for state in states.values())
    slices = tuple(explain_slice(history, key, now, when) for key, state in states.items() if state not in _READY)
    told = [run for run in history.runs() if run.pauses or run.state in {"waiting", "failed"}]
    over = [run.id for run in told if run.ended_at is not None][:-_OVER]
    runs = tuple(explain_run(history, run.id, when) for run in told if run.id not in over)
    goal = "" if wanted is None else f" of {wanted}"
    last = history.select(state="preempted", kind="slice", limit=1)
    lost = [f"{change.key} was lost last, at {when(change.at)} ({change.reason})" for change in last]
    return FleetWhy("; ".join([f"{ready}{goal} slices ready", *lost]), slices, runs)


def tell_loss(loss: LostSlice, when: When = utc) -> Iterator[Finding]:
    """Tell which host was lost, when, how that was learnt, and what replaced it."""
    host = f"host {loss.host}" if loss.host else loss.slice_id
    node = f" on node {loss.node}" if loss.node else ""
    place = f" of {loss.place}" if loss.place else ""
    learnt = f"{loss.reason}: {_DOCS.get(loss.reason, '').rstrip('.')}" + (f" ({loss.detail})" if loss.detail else "")
    text = f"{host}{node}{place} was lost at {when(loss.at)}, learnt by {learnt}"
    yield Finding("lost", text, loss.host or loss.slice_id)
    if loss.replaced_by is None:
        yield Finding("replaced", f"nothing has replaced {loss.slice_id} yet", loss.slice_id)
        return
    where = f" at {loss.replacement_place}" if loss.replacement_place else ""
    ready = "is not ready yet"
    if loss.replacement_ready_at is not None:
        ready = f"was ready {_span(loss.replacement_ready_at - loss.at)} after the loss"
    yield Finding("replaced", f"{loss.replaced_by}{where} replaced {loss.slice_id} and {ready}", loss.replaced_by)


def _is(run: RunStory) -> str:
    return run.state if run.ended_at is not None else f"is {run.state}"


def _interruption(history: HistoryQueries, pause: Pause, when: When) -> Iterator[Finding]:
    if pause.loss is not None and pause.loss.trigger == "preempt":
        yield from tell_loss(history.loss(pause.loss), when)
    if pause.seconds is None:
        text = f"its work stands still since {when(pause.stopped_at)}"
    else:
        span = f"from {when(pause.stopped_at)} until {when(pause.resumed_at or 0.0)}"
        text = f"its work stood still for {_span(pause.seconds)}, {span}, when {pause.before} ran on all hosts"
    yield Finding("stood_still", text, pause.after)


def _waits_for(slice_id: str, state: str, story: Story) -> str:
    if state == "pending":
        return "it waits for its reservation to be placed"
    hosts = {change.key: change.dest for change in story if change.kind == "host" and not change.is_note}
    missing = [key.rpartition("/")[2] for key, at in hosts.items() if at != "ready"]
    which = f"host {', '.join(missing)}" if missing else "its agents"
    return f"it waits for {which} of {slice_id} to answer"


def _avoided(history: HistoryQueries, entry: Change) -> Iterator[Finding]:
    """Name places that were lost before the slice came, or refused to it: they are kept away from for a while."""
    for change in history.story(entry.cause) if entry.trigger == "create" and entry.cause else ():
        if change.trigger == "preempt" and change.kind == "slice" and (place := history.loss(change).place):
            yield Finding("avoided", f"{place} was lost with {change.key} and is kept away from", place)
    for change in history.select(reason=Reason.PLACE_AVOIDED, limit=_TOLD):
        if change.at >= entry.at:
            yield Finding("avoided", f"{change.key} was given up: {change.detail}", change.key)


def _troubles(own: list[Change]) -> list[Finding]:
    notes = [note for note in own if note.is_note and note.reason in _TROUBLES]
    found = [Finding(_TROUBLES[note.reason], note.detail, note.key) for note in reversed(notes[-_TOLD:])]
    more = len(notes) - len(found)
    return [*found, Finding("effect_failed", f"and {more} times before", own[0].key)] if more else found


def _held_up(history: HistoryQueries, attempt: AttemptRecord) -> Iterator[Finding]:
    """Tell what fails on the slices of an attempt that is under way, and has not ended since."""
    for member in attempt.slices:
        notes = [change for change in history.story(member) if change.key == member and change.at >= attempt.started_at]
        if notes and notes[-1].reason == Reason.EFFECT_FAILED:
            yield from _troubles(notes)


def _span(seconds: float) -> str:
    """Write how long something took."""
    seconds = max(0.0, seconds)
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"
