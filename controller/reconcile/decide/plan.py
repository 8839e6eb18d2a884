"""What to do next: compare the fleet with what is desired, and return the commands.

Pure: reads the fleet, changes nothing, and on a converged fleet returns an empty decision. Only commands come from
here; what happened in the world is `sync`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

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

    What follows for runs once that is committed says `plan_work`.
    """
    steps, drains, live, due = _survey(fleet)
    if fleet.closing_by is not None:
        work, work_due = go_on(fleet)
        due = min(due, work_due)
        return Decision((*steps, *work, *drains), pause=fleet.pause, vacancies=tuple(fleet.vacancies), due=due)
    taken = [step.slice_id for step in drains if step.reason is Reason.OPERATOR]
    number = capacity(fleet, live, taken)
    drains += number.drains
    leaving = {step.slice_id for step in drains}
    work, begun, work_due = _work(fleet, [life for life in live if life.record.id not in leaving], leaving)
    due = min(due, number.due, work_due)
    return Decision((*steps, *work, *drains, *number.creates, *begun), number.pause, number.vacancies, due)


def plan_work(fleet: Fleet) -> tuple[list[WorkStep], float]:
    """Return what is to be done about runs alone, and the loop time at which, if nothing else happens, to look again.

    How many slices there are to be is decided once a tick.
    """
    if fleet.closing_by is not None:
        return go_on(fleet)
    work, begun, due = _work(fleet, [life for life in fleet.lives.values() if life.record.state in LIVE])
    return work + begun, due


def _work(
    fleet: Fleet, live: Sequence[Life], leaving: Collection[str] = ()
) -> tuple[list[WorkStep], list[WorkStep], float]:
    """Say how runs go on, and, once it is known which of them wait, who is given slices; and when to look again."""
    work, due = go_on(fleet)
    if any(step.reason is not None for step in work):
        return work, [], due
    given = schedule(fleet, live)
    grown, growth_due = growth(fleet, leaving)
    return work, [*given.starts, *([] if grown is None else [grown])], min(due, given.due, growth_due)


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
