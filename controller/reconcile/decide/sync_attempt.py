"""What became of the attempts of one run: compare its records with what was observed, and return the facts.

Pure and level-triggered, as `sync` is for slices.
"""

from __future__ import annotations

from collections.abc import Iterator

from sliceform.controller.reconcile.decide.fence import fences
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.losses import corrections, suspects
from sliceform.controller.reconcile.decide.run import Attempt, Clear, Ended, RunRecord
from sliceform.controller.reconcile.decide.step import Cleared, Corrected, Doubted, Fenced, WorkStep
from sliceform.controller.reconcile.decide.sync import FOREVER
from sliceform.controller.reconcile.decide.verdict import classify, settled, verdict_s
from sliceform.states.attempts import AttemptState, AttemptTrigger
from sliceform.states.reasons import Reason

_CHARGES = {
    Ended.SUCCEEDED: AttemptTrigger.SUCCEEDED,
    Ended.FAILED: AttemptTrigger.FAILED,
    Ended.PREEMPTED: AttemptTrigger.PREEMPTED,
    Ended.CANCELLED: AttemptTrigger.CANCELLED,
    Ended.SUPERSEDED: AttemptTrigger.SUPERSEDED,
}
_CLEAR_REASONS = {Clear.HOST_DIED: Reason.HOST_DIED, Clear.BY_TIME: Reason.FENCED_BY_TIME}


def sync_attempts(run: RunRecord, fleet: Fleet) -> list[WorkStep]:
    """Return the facts about a run's attempts that their records do not show yet, in the order to commit them."""
    if found := [step for attempt in run.unsettled for step in _found_out(attempt, fleet)]:
        return found  # they change what is charged, and a run that is over charges nothing any more
    active = run.active
    over = run.cancel_by is not None or (active is not None and active.succeeded)
    steps = [step for attempt in run.unsettled for step in _charged(run, attempt, fleet, over=over)]
    if active is not None:
        steps += _under_way(run, active, fleet)
    return steps


def due(run: RunRecord, fleet: Fleet) -> float:
    """Return the loop time at which time alone may bring another fact about a run's attempts."""
    active = run.active
    times = [] if active is None else [at for rank, at in active.fences.items() if rank not in active.clear]
    wait_s = verdict_s(fleet.settings)
    times += [attempt.doubted_at + wait_s for attempt in run.unsettled if attempt.doubted_at is not None]
    return min(times, default=FOREVER)


def _under_way(run: RunRecord, attempt: Attempt, fleet: Fleet) -> Iterator[WorkStep]:
    key = attempt.spec.key
    if attempt.succeeded:
        yield _charge(run, attempt, cancelled=False)
        return
    yield from _found_out(attempt, fleet)
    left = fences(attempt, fleet.lives, attempt.departures, now=fleet.now, settings=fleet.settings)
    if left != attempt.fences:
        yield WorkStep(key, None, given=Fenced(left))
    clear = set(attempt.clear)
    for rank in sorted((attempt.died | left.keys()) - clear):
        died = rank in attempt.died
        if died or left[rank] <= fleet.now:
            how = Clear.HOST_DIED if died else Clear.BY_TIME
            clear.add(rank)
            host = attempt.host(divmod(rank, attempt.spec.hosts_per_slice))
            yield WorkStep(key, None, _CLEAR_REASONS[how], f"{host} {how}", host, Cleared(rank, how))
    if all(is_clear(attempt, member, clear) for member in attempt.spec.members):
        yield WorkStep(key, AttemptTrigger.END, Reason.PROCESS_GONE, "nothing of it runs any more")
    elif attempt.state is AttemptState.STARTING and _is_up(attempt, fleet):
        yield WorkStep(key, AttemptTrigger.START, Reason.PROCESS_STARTED, "on all hosts")


def _found_out(attempt: Attempt, fleet: Fleet) -> Iterator[WorkStep]:
    """Yield failures that prove to be losses; and, once, that there is something which may."""
    key = attempt.spec.key
    for member, left in corrections(attempt, fleet).items():
        yield WorkStep(
            key, None, Reason.PREEMPTED_AFTER_ALL, f"{member}: {left.detail}", left.host, Corrected(member, left)
        )
    if attempt.doubted_at is None and suspects(attempt):
        yield WorkStep(key, None, given=Doubted())


def _charged(run: RunRecord, attempt: Attempt, fleet: Fleet, *, over: bool) -> Iterator[WorkStep]:
    """Yield what an attempt of which nothing runs is charged to, once that is certain, or nobody waits for it."""
    cancelled = run.cancel_by is not None and not run.waiting and attempt is run.attempts[-1]
    if cancelled or over or settled(attempt, now=fleet.now, settings=fleet.settings):
        yield _charge(run, attempt, cancelled=cancelled)


def _charge(run: RunRecord, attempt: Attempt, *, cancelled: bool) -> WorkStep:
    verdict = classify(attempt, cancelled=cancelled)
    detail = (cancelled and run.cancel_detail) or verdict.detail
    cause = verdict.host or None
    return WorkStep(attempt.spec.key, _CHARGES[verdict.ended], Reason.ATTEMPT_ENDED, detail, cause, verdict)


def is_clear(attempt: Attempt, member: str, clear: set[int] | None = None) -> bool:
    """Whether nothing of the attempt runs on this slice and, if the slice is still part of it, all is known."""
    known = attempt.clear if clear is None else clear
    slice_rank = attempt.spec.members.index(member)
    return all(
        attempt.rank((slice_rank, rank)) in known
        and (member in attempt.departures or (slice_rank, rank) in attempt.outcomes)
        for rank in range(attempt.spec.hosts_per_slice)
    )


def _is_up(attempt: Attempt, fleet: Fleet) -> bool:
    """Whether its process is alive, or has ended, on every host."""
    for slice_rank, member in enumerate(attempt.spec.members):
        life = fleet.lives.get(member)
        if life is None:
            return False
        for rank, host in enumerate(life.view.hosts):
            if host.alive != attempt.spec.key and (slice_rank, rank) not in attempt.outcomes:
                return False
    return True
