"""Log what the history records, on a thread that follows it: one event per change, and two per attempt."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from sliceform.controller.follow.attempt_steps import AttemptSteps
from sliceform.controller.follow.follower import Batch
from sliceform.controller.reconcile.decide.run import Ended
from sliceform.states.history import Change
from sliceform.states.history.attempt_log import AttemptRecord
from sliceform.states.history.run_stories import end_of_run
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunTrigger
from sliceform.states.slices import SliceTrigger

#: Documented: users set its level.
log = structlog.get_logger("sliceform.controller.log")

#: Of a slice: it is taken away, or it cannot become ready.
_LOSSES = frozenset({SliceTrigger.PREEMPT, SliceTrigger.EXPIRE})
#: Notes that somebody may have to act on. A failed effect is not one: it is tried again, and the backend warned of it.
_GRAVE = frozenset({Reason.LOST_AFTER_NOTICE, Reason.QUARANTINED, Reason.STUCK})
_BAD_ENDS = frozenset({Ended.FAILED, Ended.PREEMPTED})
#: By kind and whether it is a note; written out, so that a search for an event's name finds it.
_EVENTS: Mapping[tuple[str, bool], str] = {
    ("slice", False): "slice_changed",
    ("slice", True): "slice_noted",
    ("host", False): "host_changed",
    ("host", True): "host_noted",
    ("run", False): "run_changed",
    ("run", True): "run_noted",
    ("attempt", False): "attempt_changed",
    ("attempt", True): "attempt_noted",
    ("fleet", True): "fleet_noted",
}


class ChangeLog:
    """Writes batches to the log; used by one thread."""

    def __init__(self, label: str) -> None:
        """Take the fleet's label, which every line carries."""
        self._log = log.bind(fleet=label)
        self._steps = AttemptSteps()

    def __call__(self, batch: Batch) -> None:
        """Write what is new."""
        if batch.missed:
            self._log.warning("changes_missed", missed=batch.missed)
        for change in batch.changes:
            fields = change.as_dict()
            event = _EVENTS[fields.pop("kind"), change.is_note]
            getattr(self._log, level_of(change))(event, **fields)
        for attempt in self._steps.of(batch.attempts):
            self._attempt(attempt)

    def _attempt(self, attempt: AttemptRecord) -> None:
        known = {"attempt": attempt.key, "slices": attempt.slices}
        if attempt.ended_at is None:
            self._log.info("attempt_started", at=attempt.started_at, **known)
            return
        log = self._log.warning if attempt.outcome in _BAD_ENDS else self._log.info
        took_s = attempt.ended_at - attempt.started_at
        log(
            "attempt_ended", at=attempt.ended_at, outcome=attempt.outcome, detail=attempt.detail, took_s=took_s, **known
        )


def level_of(change: Change) -> str:
    """Say how much a change weighs.

    Returns:
        `debug` for hosts, whose slice says what follows, and for moves that an attempt's own events say better;
        `warning` for losses, slices that cannot become ready, runs that failed and whatever is stuck; `info` for the
        rest.

    """
    if change.kind == "host" or (change.kind == "attempt" and not change.is_note) or _said_by_attempts(change):
        return "debug"
    if change.trigger in _LOSSES or (change.is_note and change.reason in _GRAVE):
        return "warning"
    if change.ends_run and end_of_run(change) in _BAD_ENDS:
        return "warning"
    return "info"


def _said_by_attempts(change: Change) -> bool:
    """Whether a run only moved because an attempt of it began or ended."""
    return change.kind == "run" and change.trigger in {RunTrigger.START, RunTrigger.RETRY}
