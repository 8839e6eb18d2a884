"""Explain slices and runs from the history: what they wait for, what was lost, what replaced it, what stood still.

Pure: the same for a history in memory and in a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sliceform.controller.model.finding import Finding, read
from sliceform.controller.report.known import Known
from sliceform.controller.report.look import Look, span
from sliceform.controller.report.why import FleetWhy, Why
from sliceform.states import AttemptRecord, Change, LostSlice, Pause, Reason, RunStory

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


def explain_slice(known: Known, slice_id: str, look: Look, state: str = "unknown") -> Why:
    """Explain a slice; `state` is told if the history has forgotten how it came to it."""
    story = known.story(slice_id)
    own = [change for change in story if change.key == slice_id]
    moves = [change for change in own if not change.is_note]
    if not moves:
        return Why(slice_id, state, f"what {slice_id} went through was forgotten", tuple(_troubles(own)))
    last = moves[-1]
    state = last.dest or "gone"
    stands = look.stands(state, last.at) if last.dest else f"is gone since {look.at(last.at)}"
    summary = f"{slice_id} {stands} ({last.reason})" + (f": {last.detail}" if last.detail else "")
    findings: list[Finding] = []
    if state in _WAITING:
        findings += _cause(slice_id, state, story, look)
        findings += _avoided(known, moves[0], look)
    findings += _troubles(own)
    if moves[0].trigger == "create" and moves[0].cause:
        findings.append(Finding("replaces", f"it stands in for {moves[0].cause}", moves[0].cause))
    for change in moves:
        if change.trigger == "preempt":
            findings += tell_loss(known.loss(slice_id), look)
    return Why(slice_id, state, summary, tuple(findings))


def explain_run(
    known: Known, run: str, look: Look, state: str = "", waits_for: str = "", *, with_slices: bool = True
) -> Why:
    """Explain a run: every interruption, and what it waits for, `with_slices` also what the slices that come wait for.

    `state` and `waits_for` tell how it stands, where somebody knows better than the history: that may have forgotten
    how it came to it.
    """
    told = known.run(run) or RunStory(run, state or "unknown", waits_for, None, None, (), ())
    state = state or told.state
    summary = f"{run} {_stands(told, state, look)}"
    if told.detail:
        summary += f": {told.detail}"
    findings: list[Finding] = []
    if state == "waiting":
        unknown = f"it {look.tense('waits', 'waited')} for ready slices that are free"
        findings.append(Finding("waiting", waits_for or unknown))
        findings += _slices(known, look) if with_slices else ()
    if state == "running" and told.attempts:
        findings += _held_up(known, told.attempts[-1])
    pauses = {pause.after: pause for pause in told.pauses}
    for attempt in told.attempts:
        if attempt.outcome in {None, "succeeded"}:
            continue
        text = f"attempt {attempt.number} {attempt.outcome} at {look.at(attempt.ended_at or 0.0)}: {attempt.detail}"
        findings.append(Finding("attempt_ended", text, attempt.key))
        pause = pauses.get(attempt.key)
        if pause is not None:
            findings += _interruption(known, pause, look)
    if len(told.pauses) > 1:
        findings.append(Finding("stood_still", f"it stood still for {span(told.stood_still_s)} in all", run))
    return Why(run, state, summary, tuple(findings))


def explain_fleet(known: Known, look: Look, wanted: int | None = None) -> FleetWhy:
    """Explain the fleet as the history leaves it: slices that are not ready, and runs that wait or were interrupted."""
    ready = sum(state in _READY for state in known.states.values())
    missing = {key: state for key, state in known.states.items() if state not in _READY}
    known.prepare(missing)
    slices = tuple(explain_slice(known, key, look, state) for key, state in missing.items())
    told = [run for run in known.runs() if run.pauses or run.state in {"waiting", "failed"}]
    over = [run.id for run in told if run.ended_at is not None][:-_OVER]
    runs = tuple(explain_run(known, run.id, look, with_slices=False) for run in told if run.id not in over)
    goal = "" if wanted is None else f" of {wanted}"
    lost = [
        f"{change.key} {_taken(change.reason)} last, at {look.at(change.at)} ({change.reason})"
        for change in known.preempted_last
    ]
    count = f"{ready}{goal} slices {look.tense('ready', f'were ready when the driver ended at {look.at(look.now)}')}"
    return FleetWhy("; ".join([count, *lost]), slices, runs)


def tell_loss(loss: LostSlice, look: Look) -> Iterator[Finding]:
    """Tell which host was lost or given notice, when, how that was learnt, and what replaced it."""
    host = f"host {loss.host}" if loss.host else loss.slice_id
    node = f" on node {loss.node}" if loss.node else ""
    place = f" of {loss.place}" if loss.place else ""
    learnt = f"{loss.reason}: {_DOCS.get(loss.reason, '').rstrip('.')}" + (f" ({loss.detail})" if loss.detail else "")
    text = f"{host}{node}{place} {_taken(loss.reason)} at {look.at(loss.at)}, learnt by {learnt}"
    if loss.noticed and loss.lost_at is not None:
        text += f"; it was lost at {look.at(loss.lost_at)}"
    subject = loss.host or loss.slice_id
    yield Finding("noticed", text, subject) if loss.noticed else Finding("lost", text, subject)
    if loss.replaced_by is None:
        yield Finding("replaced", f"nothing {look.tense('has', 'had')} replaced {loss.slice_id} yet", loss.slice_id)
        return
    where = f" at {loss.replacement_place}" if loss.replacement_place else ""
    ready = look.tense("is not ready yet", "was not ready yet")
    if loss.replacement_ready_at is not None:
        ready = (
            f"was ready {span(loss.replacement_ready_at - loss.at)} after the {'notice' if loss.noticed else 'loss'}"
        )
    yield Finding("replaced", f"{loss.replaced_by}{where} replaced {loss.slice_id} and {ready}", loss.replaced_by)


def _taken(reason: str) -> str:
    return "was given notice" if reason == Reason.PREEMPTION_NOTICE else "was lost"


def _stands(run: RunStory, state: str, look: Look) -> str:
    if not run.attempts and run.submitted_at is None:
        return f"{look.tense('is', 'was')} {state}; what led there was forgotten"
    count = run.attempts[-1].number if run.attempts else 0
    after = f"after {count} attempt{'s' * (count != 1)}"
    if run.ended_at is not None:
        return f"{state} {after}"
    if look.over:
        return f"was {state} {after} when its driver ended at {look.at(look.now)}"
    return f"is {state} {after}"


def _interruption(known: Known, pause: Pause, look: Look) -> Iterator[Finding]:
    if pause.loss is not None and pause.loss.trigger == "preempt":
        yield from tell_loss(known.loss(pause.loss.key), look)
    since = look.at(pause.stopped_at)
    if pause.seconds is None:
        text = look.tense(f"its work stands still since {since}", f"its work stood still from {since} on")
    else:
        until = look.at(pause.resumed_at or 0.0)
        text = f"its work stood still for {span(pause.seconds)}, from {since} until {until}"
        text += f", when {pause.before} ran on all hosts"
    yield Finding("stood_still", text, pause.after)


def _slices(known: Known, look: Look) -> Iterator[Finding]:
    """Lead from a run that waits to what its slices wait for; those with the same cause are told together."""
    waiting = {name: state for name, state in known.states.items() if state in _WAITING}
    known.prepare(waiting)
    causes: dict[tuple[str, str], list[str]] = {}
    for name, state in waiting.items():
        text = "; ".join(f"{cause.code}: {cause.text}" for cause in _cause(name, state, known.story(name), look))
        causes.setdefault((state, text), []).append(name)
    for (state, text), names in list(causes.items())[:_TOLD]:
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        stand = look.tense("is", "was") if len(names) == 1 else look.tense("are", "were")
        yield Finding("waiting", f"{', '.join(names[:_TOLD])}{more} {stand} {state}: {text}", names[0])


def _cause(slice_id: str, state: str, story: Sequence[Change], look: Look) -> list[Finding]:
    """Say what a slice waits for: what the cluster said last, if it did."""
    waits = look.tense("waits", "waited")
    if state == "pending":
        said = [note for note in story if note.key == slice_id and note.reason == Reason.HELD_UP][-1:]
        found = [finding._replace(subject=slice_id) for note in said for finding in read(note.detail)]
        if found:
            found[-1] = found[-1]._replace(text=f"{found[-1].text} (seen at {look.at(said[0].at)})")
            return found
        return [Finding("waiting", f"it {waits} for its reservation to be placed")]
    return [Finding("waiting", f"it {waits} for {_missing_hosts(slice_id, story)}")]


def _missing_hosts(slice_id: str, story: Sequence[Change]) -> str:
    hosts = {change.key: change.dest for change in story if change.kind == "host" and not change.is_note}
    missing = [key.rpartition("/")[2] for key, at in hosts.items() if at != "ready"]
    which = f"host {', '.join(missing)}" if missing else "its agents"
    return f"{which} of {slice_id} to answer"


def _avoided(known: Known, entry: Change, look: Look) -> Iterator[Finding]:
    """Name places that were lost before the slice came, or refused to it: they are kept away from for a while."""
    kept = look.tense("is", "was")
    for change in known.story(entry.cause) if entry.trigger == "create" and entry.cause else ():
        if change.trigger == "preempt" and change.kind == "slice" and (place := known.loss(change.key).place):
            yield Finding(
                "avoided", f"{place} {_taken(change.reason)} with {change.key} and {kept} kept away from", place
            )
    for change in known.refused:
        if change.at >= entry.at:
            yield Finding("avoided", f"{change.key} was given up: {change.detail}", change.key)


def _troubles(own: list[Change]) -> list[Finding]:
    notes = [note for note in own if note.is_note and note.reason in _TROUBLES]
    found = [Finding(_TROUBLES[note.reason], note.detail, note.key) for note in reversed(notes[-_TOLD:])]
    more = len(notes) - len(found)
    return [*found, Finding("effect_failed", f"and {more} times before", own[0].key)] if more else found


def _held_up(known: Known, attempt: AttemptRecord) -> Iterator[Finding]:
    """Tell what fails on the slices of an attempt that is under way, and has not ended since."""
    for member in attempt.slices:
        notes = [change for change in known.story(member) if change.key == member and change.at >= attempt.started_at]
        if notes and notes[-1].reason == Reason.EFFECT_FAILED:
            yield from _troubles(notes)
