"""What to do next: compare the fleet with what is desired, and return the commands.

Pure: reads the fleet, changes nothing, and on a converged fleet returns an empty decision. Only commands come from
here; what happened in the world is `sync`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

from sliceform.controller.reconcile.decide.capacity import capacity
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.runs import go_on
from sliceform.controller.reconcile.decide.schedule import growth, schedule
from sliceform.controller.reconcile.decide.step import Decision, Step, WorkStep
from sliceform.controller.reconcile.decide.sync import FOREVER, earliest_notice
from sliceform.states.reasons import Reason
from sliceform.states.slices import LIVE, SliceState, SliceTrigger

#: Times that differ by less are the same, seconds.
_SAME_S = 0.001


def plan(fleet: Fleet) -> Decision:
    """Return everything that is to be done now, in the order to do it.

    What follows from it is planned when it is committed: who starts, once it is known who waits.
    """
    steps, drains, live, due = _survey(fleet)
    work, work_due = go_on(fleet)
    due = min(due, work_due)
    if fleet.closing_by is not None:
        return Decision((*steps, *work, *drains), pause=fleet.pause, vacancies=tuple(fleet.vacancies), due=due)
    taken = [step.slice_id for step in drains if step.reason is Reason.OPERATOR]
    number = capacity(fleet, live, taken)
    drains += number.drains
    begun: list[WorkStep] = []
    if not any(step.trigger for step in work):
        leaving = {step.slice_id for step in drains}
        given = schedule(fleet, [life for life in live if life.record.id not in leaving])
        grown, growth_due = growth(fleet, leaving)
        begun = [*given.starts, *([] if grown is None else [grown])]
        due = min(due, given.due, growth_due)
    due = min(due, number.due)
    return Decision((*steps, *work, *drains, *number.creates, *begun), number.pause, number.vacancies, due)


def _survey(fleet: Fleet) -> tuple[list[Step], list[Step], list[Life], float]:
    """Go through all lives once.

    Returns:
        What draining slices have still to be told, slices that have to go, live slices that stay, and when a grace is
        over.

    """
    steps: list[Step] = []
    drains: list[Step] = []
    live: list[Life] = []
    due = FOREVER
    for life in fleet.lives.values():
        state = life.record.state
        if state is None:
            continue
        if state is SliceState.DRAINING:
            steps += _hurry(fleet, life)
            continue
        if state is SliceState.PREEMPTED:
            due = min(due, _grace_end(fleet, life))
        drain = _due_drain(fleet, life)
        if drain is not None:
            drains.append(drain)
        elif state in LIVE:
            live.append(life)
    return steps, drains, live, due


def _hurry(fleet: Fleet, life: Life) -> Iterator[Step]:
    """Give the work on a slice that drains already less time, when a later command leaves it less."""
    until = fleet.work_until(life)
    if life.release_by is None or until >= life.release_by - _SAME_S or work_gone(life):
        return
    left_s = max(0.0, until - fleet.now)
    yield Step(life.record.id, None, None, Reason.HURRIED, f"its work has {left_s:.1f} s to stop")


def _due_drain(fleet: Fleet, life: Life) -> Step | None:
    """Let a slice go, whatever the count: the fleet closes, a person asked, or what preempted it is over."""
    record = life.record
    reason = None
    if fleet.closing_by is not None:
        reason = Reason.CLOSED
    elif record.state is SliceState.PREEMPTED:
        if record.lost or life.noted_loss:
            reason = Reason.LOST
        elif work_gone(life):
            reason = Reason.WORK_GONE
        elif fleet.now >= _grace_end(fleet, life):
            reason = Reason.GRACE_OVER
    elif life.drain_by is not None:
        reason = Reason.OPERATOR
    return None if reason is None else Step(record.id, None, SliceTrigger.DRAIN, reason)


def work_gone(life: Life) -> bool:
    """Whether no process of the attempt that the slice was given is left on it."""
    attempt = life.record.attempt
    return attempt is None or all(host.gone == attempt for host in life.view.hosts)


def _grace_end(fleet: Fleet, life: Life) -> float:
    """Return when work on a preempted slice has had its time: the notice's deadline or the usual grace, or less."""
    notice = earliest_notice(life)
    deadline = notice.deadline_epoch_s if notice is not None else life.record.deadline
    grace_over = life.record.since + fleet.settings.drain_grace_s
    end = grace_over if deadline is None else fleet.now + deadline - fleet.epoch
    return end if life.drain_by is None else min(end, life.drain_by)
