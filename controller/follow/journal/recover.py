"""Close what a driver left open that ended without closing, by the transitions that closing would have made.

Pure: from what the journal shows to the changes that end it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sliceform.states import (
    AttemptRecord,
    AttemptState,
    AttemptTrigger,
    Change,
    HostState,
    HostTrigger,
    Reason,
    RunState,
    RunTrigger,
    SliceState,
    SliceTrigger,
)

#: The outcome of runs and attempts whose driver is gone.
_OUTCOME = "cancelled"
_FINISHED = Reason.RUN_FINISHED.value


def closing(
    states: Mapping[str, str],
    runs: Iterable[str],
    attempts: Iterable[AttemptRecord],
    *,
    last_seq: int,
    at: float,
    detail: str,
) -> tuple[list[Change], list[AttemptRecord]]:
    """Return the changes that let every record leave, and the attempts as they ended.

    Args:
        states: of every record that has not left, by id; version 0.1.0 kept none of runs and attempts.
        runs: that are not over.
        attempts: that have not ended.
        last_seq: number of the last change.
        at: when this is found out, seconds since the epoch.
        detail: why, in a sentence.

    """
    ended = [attempt._replace(ended_at=attempt.ended_at or at, outcome=_OUTCOME, detail=detail) for attempt in attempts]
    slices = [name for name in states if name.startswith("slice-") and "/" not in name]
    steps = [step for name in slices for step in _leave(name, states, detail)]
    for attempt in ended:
        steps += _end(attempt.key, states.get(attempt.key, AttemptState.STARTING.value), detail)
    going_on = {attempt.run for attempt in ended}
    for run in runs:
        state = states.get(run, (RunState.RUNNING if run in going_on else RunState.WAITING).value)
        steps.append(_move("run", run, RunTrigger.CANCELLED, state, None, detail)._replace(reason=_FINISHED))
    return [step._replace(seq=seq, at=at) for seq, step in enumerate(steps, last_seq + 1)], ended


def _end(attempt: str, state: str, detail: str) -> Iterator[Change]:
    """Yield how an attempt leaves: nothing of it runs any more, and nobody is charged."""
    ended = AttemptState.ENDED.value
    if state != ended:
        yield _move("attempt", attempt, AttemptTrigger.END, state, ended)
    yield _move("attempt", attempt, AttemptTrigger.CANCELLED, ended, None, detail)


def _leave(name: str, states: Mapping[str, str], detail: str) -> Iterator[Change]:
    """Yield how a slice and its hosts leave: as in the loop, the slice drains first and is released last."""
    hosts = [host for host in states if host.rpartition("/")[0] == name]
    if states[name] != SliceState.DRAINING:
        yield _move("slice", name, SliceTrigger.DRAIN, states[name], SliceState.DRAINING.value, detail)
    for host in hosts:
        if states[host] != HostState.DRAINING:
            yield _move("host", host, HostTrigger.DRAIN, states[host], HostState.DRAINING.value, "", name)
    for host in hosts:
        yield _move("host", host, HostTrigger.RELEASE, HostState.DRAINING.value, None)
    yield _move("slice", name, SliceTrigger.RELEASE, SliceState.DRAINING.value, None)


def _move(  # noqa: PLR0917 - in the order of a change's fields
    kind: str, key: str, trigger: str, source: str, dest: str | None, detail: str = "", cause: str | None = None
) -> Change:
    return Change(0, 0, 0.0, kind, key, str(trigger), source, dest, Reason.DRIVER_GONE.value, detail, cause)
