"""Keep the books of runs and attempts: what is remembered besides a record's state with each move and each note."""

from __future__ import annotations

import bisect

from sliceform.controller.model.effects import AttemptSpec
from sliceform.controller.reconcile import requests
from sliceform.controller.reconcile.decide.run import Attempt, Ended, RunRecord, Verdict
from sliceform.controller.reconcile.decide.step import (
    Cleared,
    Corrected,
    Doubted,
    Fenced,
    Growth,
    Halt,
    Members,
    WorkStep,
)
from sliceform.controller.reconcile.decide.verdict import exempted
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.attempts import AttemptState, AttemptTrigger
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunTrigger


def submit(ledger: Ledger, run: RunRecord, told: str) -> None:
    """Take a run in: it waits for slices from now on, or ends at once where there will be none."""
    fleet = ledger.fleet
    run.submitted_at = fleet.now
    run.sizes = run.options.sizes or fleet.desired.sizes
    bisect.insort(fleet.runs, run, key=lambda other: -other.options.priority)
    ledger.move(run, RunTrigger.SUBMIT, Reason.RUN_SUBMITTED, told)
    if fleet.closing_by is not None:
        cancel(ledger, run, 0.0, "the fleet is closing")


def cancel(ledger: Ledger, run: RunRecord, grace_s: float, detail: str = "") -> None:
    """Have a run end; its processes have `grace_s` seconds from now, asked again only ever less.

    `detail` is why, if nobody asked for it.
    """
    by = ledger.fleet.now + grace_s
    if run.cancel_by is None or by < run.cancel_by:
        run.cancel_by, run.cancel_detail = by, run.cancel_detail or detail


def run_moved(ledger: Ledger, run: RunRecord, step: WorkStep) -> None:
    """Write down what goes with a run's transition."""
    if isinstance(step.given, Members):
        _start(ledger, run, step.given.slices)
    elif step.trigger is RunTrigger.RETRY:
        assert isinstance(step.given, Verdict)
        run.not_before = ledger.fleet.now + _pause_s(ledger, run, step.given.ended)
    else:
        run.ended = Ended(str(step.trigger))
        ledger.fleet.runs.remove(run)
        run.on_end(run)


def run_noted(ledger: Ledger, run: RunRecord, step: WorkStep) -> None:
    """Write down what goes with a note about a run."""
    if step.reason is Reason.LIMIT_REACHED:
        cancel(ledger, run, ledger.settings.cancel_grace_s, step.detail)


def attempt_moved(ledger: Ledger, run: RunRecord, attempt: Attempt, step: WorkStep) -> None:
    """Write down what goes with an attempt's transition."""
    if step.trigger is AttemptTrigger.STOP:
        attempt.asked = True
        if isinstance(step.given, Growth):
            _grow(ledger, run, attempt, step)
    elif step.trigger is AttemptTrigger.END:
        _close(ledger, attempt)
        run.unsettled.append(attempt)
    elif attempt.state is None:
        if attempt in run.unsettled:
            run.unsettled.remove(attempt)
        else:
            _close(ledger, attempt)
        assert isinstance(step.given, Verdict)
        _charge(run, attempt, step.given)
    if attempt.state is not AttemptState.STOPPING:
        ledger.record_attempt(attempt)


def attempt_noted(ledger: Ledger, attempt: Attempt, step: WorkStep) -> None:
    """Write down what was found out about an attempt, or do what was decided of its end."""
    match step.given:
        case Cleared(rank, how):
            attempt.clear[rank] = how
        case Fenced(at):
            attempt.fences = dict(at)
        case Doubted():
            attempt.doubted_at = ledger.fleet.now
        case Corrected(slice_id, left):
            attempt.departures[slice_id] = left
        case Halt() as halt:
            _halt(ledger, attempt, halt)


def _start(ledger: Ledger, run: RunRecord, members: tuple[str, ...]) -> None:
    """Make the attempt that the slices are for."""
    fleet = ledger.fleet
    number = run.tries + 1
    last = run.attempts[-1] if run.attempts else None
    spec = AttemptSpec(
        key=f"{run.id}/{number}",
        run_id=run.id,
        number=number,
        members=members,
        hosts_per_slice=ledger.shape.hosts,
        work=run.work,
        env=run.options.env,
        runtime_env=run.options.runtime_env,
        previous=None if last is None else f"{last.ended or 'ended'}: {last.why_ended or last.detail}",
        jax_shutdown_s=ledger.settings.jax_shutdown_s,
    )
    lives = [fleet.lives[member] for member in members]
    nodes = tuple((host.node_id, host.address) for life in lives for host in life.view.hosts)
    attempt = Attempt(spec, fleet.epoch, nodes=nodes)
    run.begin(attempt)
    run.grown_to = None
    ledger.attempts[spec.key] = attempt
    for life in lives:
        life.record.attempt = spec.key
        life.over = life.stop_by = None
        life.view.outcomes.clear()


def _grow(ledger: Ledger, run: RunRecord, attempt: Attempt, step: WorkStep) -> None:
    assert isinstance(step.given, Growth)
    grace_s = ledger.settings.drain_grace_s
    attempt.superseded = step.detail
    attempt.stop_at = ledger.fleet.now + grace_s
    attempt.deadline = ledger.fleet.epoch + grace_s
    run.grown_to = step.given.size


def _halt(ledger: Ledger, attempt: Attempt, halt: Halt) -> None:
    attempt.stop_at, attempt.deadline = halt.stop_at, halt.deadline
    attempt.told = frozenset(attempt.departures)
    if halt.tell:
        requests.tell(ledger, attempt)
    if halt.force_by is not None and halt.force_by != attempt.force_by:
        attempt.force_by = halt.force_by
        requests.stop(ledger, attempt, halt.force_by)


def _close(ledger: Ledger, attempt: Attempt) -> None:
    """Nothing of it runs any more: its slices are free of it."""
    attempt.ended_epoch_s = ledger.fleet.epoch
    del ledger.attempts[attempt.spec.key]
    for member in attempt.spec.members:
        life = ledger.fleet.lives.get(member)
        if life is not None and life.record.attempt == attempt.spec.key:
            life.over = attempt.spec.key
            life.view.version += 1


def _charge(run: RunRecord, attempt: Attempt, verdict: Verdict) -> None:
    attempt.verdict = verdict
    rule = exempted(run, attempt, verdict) if verdict.ended is Ended.FAILED else None
    run.preemptions += verdict.ended is Ended.PREEMPTED or rule is True
    run.failures += verdict.ended is Ended.FAILED and rule is not True
    if attempt is not run.attempts[-1]:
        attempt.shed()


def _pause_s(ledger: Ledger, run: RunRecord, ended: Ended) -> float:
    """Return how long the next attempt is to wait, seconds: longer with every attempt in a row that ended soon.

    After the first preemption it does not wait: that says nothing of what comes.
    """
    fleet = ledger.fleet
    if ended is Ended.SUPERSEDED:
        return 0.0
    soon = fleet.epoch - run.attempts[-1].started_epoch_s < ledger.settings.backoff_max_s
    run.hasty = run.hasty + 1 if soon else 1
    failures = run.hasty if ended is Ended.FAILED else run.hasty - 1
    return fleet.backoff.until(failures, 0.0) if failures > 0 else 0.0
