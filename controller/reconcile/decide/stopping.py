"""Whom an attempt's work is to be told to stop, and from when on by force.

Pure: reads the attempt and the lives of its slices; only commands come from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sliceform.controller.model.events import OutcomeKind
from sliceform.controller.model.settings import Settings
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt, RunRecord
from sliceform.controller.reconcile.decide.step import Halt, WorkStep
from sliceform.controller.reconcile.decide.sync import FOREVER, earliest_notice, is_lost
from sliceform.controller.reconcile.decide.sync_attempt import is_clear
from sliceform.states.attempts import AttemptState, AttemptTrigger
from sliceform.states.reasons import Reason

#: Times that differ by less are the same, seconds.
_SAME_S = 0.001


def stop(run: RunRecord, attempt: Attempt, fleet: Fleet) -> Iterator[WorkStep]:
    """Say that an attempt under way is to stop, or what changes for one that is stopping."""
    if attempt.state is not AttemptState.STOPPING:
        yield from _begin(run, attempt)
        return
    halt = _halt(run, attempt, fleet)
    if halt is not None:
        yield WorkStep(attempt.spec.key, None, given=halt)


def due(attempt: Attempt, steps: Iterable[WorkStep] = ()) -> float:
    """Return the loop time at which an attempt under way is to be stopped by force, once these steps are committed."""
    by: Attempt | Halt = attempt
    for step in steps:
        if isinstance(step.given, Halt):
            by = step.given
    return FOREVER if by.stop_at is None or by.force_by is not None else by.stop_at


def _begin(run: RunRecord, attempt: Attempt) -> Iterator[WorkStep]:
    key = attempt.spec.key
    if run.cancel_by is not None:
        yield WorkStep(key, AttemptTrigger.STOP, Reason.RUN_CANCELLED, run.cancel_detail)
        return
    for where, outcome in attempt.outcomes.items():
        if outcome.kind is not OutcomeKind.RETURNED:
            host = attempt.host(where)
            yield WorkStep(key, AttemptTrigger.STOP, Reason.PROCESS_ENDED, f"{host}: {outcome.kind}", host)
            return


def _halt(run: RunRecord, attempt: Attempt, fleet: Fleet) -> Halt | None:
    """Return by when its work has to stop, and what is to be asked for now; None if nothing changes."""
    now = fleet.now
    stop_at = attempt.stop_at
    if run.cancel_by is not None or attempt.departures or (attempt.troubled and not attempt.superseded):
        # Time that was given may only get shorter: by a cancel, or by a loss after a notice.
        fresh = now + _grace(run, attempt, fleet)
        if stop_at is None or fresh < stop_at - _SAME_S:
            stop_at = fresh
    known = (attempt.deadline, _deadline(run, attempt, fleet, stop_at))
    deadline = min((time for time in known if time), default=None)
    tell = attempt.told != attempt.departures.keys() or deadline != attempt.deadline
    force_by = attempt.force_by
    if stop_at is not None and now >= stop_at:
        until = now if run.cancel_by is None else max(now, run.cancel_by)
        if force_by is None or until < force_by - _SAME_S:
            force_by = until
    halt = Halt(stop_at, deadline, force_by, tell)
    same = (stop_at, force_by, tell) == (attempt.stop_at, attempt.force_by, False)
    return None if same else halt


def _deadline(run: RunRecord, attempt: Attempt, fleet: Fleet, stop_at: float | None) -> float | None:
    """Return by when the work has to stop, epoch seconds: what the notices say, or sooner if we end it sooner."""
    lives = [fleet.lives[member] for member in attempt.departures if member in fleet.lives]
    notices = [notice for life in lives if (notice := earliest_notice(life)) is not None]
    deadlines = [notice.deadline_epoch_s for notice in notices if notice.deadline_epoch_s is not None]
    if stop_at is not None and stop_at != attempt.stop_at and run.cancel_by is None and fleet.now < stop_at < FOREVER:
        end = fleet.epoch + (stop_at - fleet.now)
        # The same moment comes back a little different when it goes through loop time.
        if end < min(deadlines, default=FOREVER) - _SAME_S:
            deadlines.append(end)
    return min(deadlines, default=None)


def _grace(run: RunRecord, attempt: Attempt, fleet: Fleet) -> float:
    """Return how long the attempt's processes may go on from now, seconds.

    Slices that are noticed or drained leave time to save, also when some hosts have raised meanwhile: that is how they
    say that they have saved.
    """
    settings, departures = fleet.settings, attempt.departures
    if run.cancel_by is not None:
        return 0.0  # the grace goes with the request to stop
    known = attempt.stop_at is not None
    present = _present(attempt, fleet.lives, known=known)
    if any(is_lost(life) or life.record.lost for life in present):
        return settings.loss_grace_s
    if departures and not present and known:
        return FOREVER  # what was noticed or drained has saved and is gone; the others keep their time
    times = [_time_left(life, settings, now=fleet.now, epoch=fleet.epoch) for life in present]
    return min(times, default=settings.loss_grace_s)


def _present(attempt: Attempt, lives: Mapping[str, Life], *, known: bool) -> list[Life]:
    """Return the slices that have left and on which something of the attempt may still run.

    At the first look, also what has saved and is clear already says how long the others have.
    """
    return [
        lives[member] for member in attempt.departures if member in lives and not (known and is_clear(attempt, member))
    ]


def _time_left(life: Life, settings: Settings, *, now: float, epoch: float) -> float:
    """Return how long work may go on on a slice that is noticed or drained, seconds."""
    if life.drain_by is not None:
        return max(0.0, life.drain_by - now)
    notice = earliest_notice(life)
    deadline = notice.deadline_epoch_s if notice is not None else life.record.deadline
    return settings.drain_grace_s if deadline is None else max(0.0, deadline - epoch)
