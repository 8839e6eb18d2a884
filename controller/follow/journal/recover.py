"""Close what a driver left open that ended without closing, by the transitions that closing would have made.

Pure: from what the journal shows to the changes that end it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sliceform.states import AttemptRecord, Change, HostState, HostTrigger, Reason, SliceState, SliceTrigger

#: The outcome of runs and attempts whose driver is gone.
_OUTCOME = "cancelled"


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
        states: of every slice and host that has not left, by id.
        runs: that are not over.
        attempts: that have not ended.
        last_seq: number of the last change.
        at: when this is found out, seconds since the epoch.
        detail: why, in a sentence.

    """
    ended = [attempt._replace(ended_at=at, outcome=_OUTCOME, detail=detail) for attempt in attempts]
    steps = [step for name in states if "/" not in name for step in _leave(name, states, detail)]
    steps += [
        _note(attempt.run, "running", Reason.ATTEMPT_ENDED, f"attempt {attempt.number} {_OUTCOME}: {detail}")
        for attempt in ended
    ]
    steps += [_note(run, _OUTCOME, Reason.RUN_FINISHED, f"{_OUTCOME}: {detail}") for run in runs]
    return [step._replace(seq=seq, at=at) for seq, step in enumerate(steps, last_seq + 1)], ended


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


def _note(run: str, state: str, reason: Reason, detail: str) -> Change:
    return Change(0, 0, 0.0, "run", run, None, state, state, reason.value, detail)
