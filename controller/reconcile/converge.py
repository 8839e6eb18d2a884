"""Commit facts and commands until none is left: sync, plan and commit, again while runs or attempts moved.

What follows from a transition follows in the same tick: an attempt that ends frees its slices for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sliceform.controller.reconcile.commit import commit
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.plan import plan, plan_work
from sliceform.controller.reconcile.decide.step import Step, WorkStep
from sliceform.controller.reconcile.decide.sync import FOREVER, silent_ranks, sync
from sliceform.controller.reconcile.decide.sync import due as slice_due
from sliceform.controller.reconcile.decide.sync_attempt import sync_attempts
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState

#: Facts of one life lead to further facts of it, and decisions to further ones, at most so often within a tick.
_MAX_PASSES = 8
_HEARD = frozenset({SliceState.PLACED, SliceState.READY, SliceState.RUNNING})


def converge(ledger: Ledger) -> float:
    """Commit what is to be committed now; return the loop time at which time alone may bring more."""
    fleet = ledger.fleet
    next_due = _facts(ledger)
    decision = plan(fleet)
    moved = _do(ledger, decision.steps)
    fleet.pause, fleet.vacancies = decision.pause, list(decision.vacancies)
    next_due = min(next_due, decision.due)
    for _ in range(_MAX_PASSES):
        if not moved:
            return next_due
        next_due = min(next_due, _facts(ledger))
        steps, due = plan_work(fleet)
        moved = _do(ledger, steps)
        next_due = min(next_due, due)
    return fleet.now


def _do(ledger: Ledger, steps: Sequence[Step | WorkStep]) -> bool:
    """Commit what was decided; return whether more may follow: a run or an attempt moved, or a run is to end."""
    worked = [commit(ledger, [step]) or step.reason is Reason.LIMIT_REACHED for step in steps]
    return any(worked)


def _facts(ledger: Ledger) -> float:
    """Commit the facts; return the loop time at which time alone may bring more of slices."""
    for _ in range(_MAX_PASSES):
        next_due = _sync_slices(ledger)
        if not _sync_work(ledger):
            return next_due
    return ledger.fleet.now


def _sync_work(ledger: Ledger) -> bool:
    """Commit the facts of all attempts; return whether there were any."""
    # Runs that only wait have none, and there may be thousands.
    found = [step for run in ledger.fleet.runs if run.attempts for step in sync_attempts(run, ledger.fleet)]
    for step in found:
        commit(ledger, [step])
    return bool(found)


def _sync_slices(ledger: Ledger) -> float:
    fleet = ledger.fleet
    now = fleet.now
    stale = [life for life in fleet.lives.values() if life.due <= now or life.synced != life.version]
    if stale:
        _sync_stale(ledger, stale)
    return min((life.due for life in fleet.lives.values()), default=FOREVER)


def _sync_stale(ledger: Ledger, stale: Sequence[Life]) -> None:
    """Commit the facts of lives that changed, or whose time has come."""
    now, limits = ledger.fleet.now, ledger.limits(silence_held=_silence_held(ledger, stale))
    for _ in range(_MAX_PASSES):
        if not stale:
            return
        moved = []
        for life in stale:
            steps = sync(life, now, limits)
            life.synced = life.version
            if steps:
                commit(ledger, steps)
                moved.append(life)
            life.due = slice_due(life, limits)
            if life.due <= now:
                life.due = now + ledger.settings.resync_s
        stale = [life for life in moved if life.record.state is not None]


def _silence_held(ledger: Ledger, looked_at: Iterable[Life]) -> bool:
    """Whether so many slices fell silent together that it is more likely us who cannot hear.

    Slices cut off at the same moment fall silent up to a beat apart, so those about to do so count, too. Whom it
    concerns is asked first: all others need not be counted when none of those `looked_at` is silent.
    """
    settings, now = ledger.settings, ledger.fleet.now
    if not any(silent_ranks(life, now, settings.effective_silence_s) for life in looked_at):
        return False
    soon_s = max(settings.beat_s, settings.effective_silence_s - 1.5 * settings.beat_s)
    heard = [life for life in ledger.fleet.lives.values() if life.record.state in _HEARD]
    if len(heard) < 2:  # noqa: PLR2004 - "more than half of two or more"
        return False
    silent = sum(bool(silent_ranks(life, now, soon_s)) for life in heard)
    return 2 * silent > len(heard)
