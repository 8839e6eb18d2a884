"""How runs go on: their attempts are stopped, they are tried again or over, and their time has limits.

Pure: reads the fleet, changes nothing; only commands come from here.
"""

from __future__ import annotations

from collections.abc import Iterator

from sliceform.controller.reconcile.decide import stopping, sync_attempt
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.run import Ended, RunRecord, may_retry
from sliceform.controller.reconcile.decide.step import WorkStep
from sliceform.controller.reconcile.decide.sync import FOREVER
from sliceform.controller.reconcile.decide.verdict import classify, exempted
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunTrigger

_ENDS = {Ended.FAILED: RunTrigger.FAILED, Ended.PREEMPTED: RunTrigger.PREEMPTED}


def go_on(fleet: Fleet) -> tuple[list[WorkStep], float]:
    """Return what is to be done about runs that are there, before any is given slices.

    Returns:
        The steps, and the loop time at which, if nothing else happens, to look again.

    """
    steps: list[WorkStep] = []
    due = FOREVER
    for run in fleet.runs:
        limits = run.options
        if limits.max_wait_s is not None or limits.timeout_s is not None:
            ended, when = _limit(fleet, run)
            steps += ended
            due = min(due, when)
        if not run.attempts:
            if run.cancel_by is not None:
                steps.append(_cancelled(run))
            continue  # it only waits, and there may be thousands
        active = run.active
        if active is not None:
            stops = list(stopping.stop(run, active, fleet))
            steps += stops
            due = min(due, stopping.due(active, stops))
        else:
            steps += _after_attempt(run)
        due = min(due, sync_attempt.due(run, fleet))
        if run.not_before > fleet.now:
            due = min(due, run.not_before)
    return steps, due


def _limit(fleet: Fleet, run: RunRecord) -> tuple[list[WorkStep], float]:
    """End a run that has waited, or is there, longer than its options allow; and say when that is."""
    limits = run.options
    by, detail = FOREVER, ""
    if limits.timeout_s is not None:
        by, detail = run.submitted_at + limits.timeout_s, f"it was not over within timeout_s={limits.timeout_s:g}"
    if limits.max_wait_s is not None and run.waiting and run.since + limits.max_wait_s < by:
        by, detail = run.since + limits.max_wait_s, f"it waited for slices for max_wait_s={limits.max_wait_s:g}"
    if run.cancel_by is not None and run.cancel_by <= max(by, fleet.now) + fleet.settings.cancel_grace_s:
        return [], FOREVER  # it ends sooner than the limit would have it
    return ([WorkStep(run.id, None, Reason.LIMIT_REACHED, detail)], FOREVER) if by <= fleet.now else ([], by)


def _cancelled(run: RunRecord) -> WorkStep:
    last = run.attempts[-1] if run.attempts else None
    detail = run.cancel_detail
    if not detail:
        detail = "cancelled while it waited" if run.waiting or last is None else last.why_ended
    return WorkStep(run.id, RunTrigger.CANCELLED, Reason.RUN_FINISHED, detail)


def _after_attempt(run: RunRecord) -> Iterator[WorkStep]:
    """Say what follows when no attempt of a run is under way."""
    if run.cancel_by is not None:
        if not run.unsettled:
            yield _cancelled(run)
        return
    if run.waiting:
        return
    last = run.attempts[-1]
    verdict = last.verdict or classify(last, cancelled=False)
    rule = exempted(run, last, verdict) if verdict.ended is Ended.FAILED else None
    if rule is not False and may_retry(run):
        number = last.spec.number
        detail = f"attempt {number} {verdict.ended}: {verdict.detail}" if last.verdict else f"attempt {number} ended"
        yield WorkStep(run.id, RunTrigger.RETRY, Reason.ATTEMPT_ENDED, detail, last.spec.key, verdict)
    elif not run.unsettled:
        yield WorkStep(run.id, _ENDS[verdict.ended], Reason.RUN_FINISHED, verdict.detail, last.spec.key)
