"""Give slices to runs: which run starts, on what size, and when one that is under way is started again on more.

Pure: reads the picture, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sliceform.controller.reconcile.decide.fleet import Picture
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import RunRecord, assign
from sliceform.controller.reconcile.decide.step import GrowRun, StartAttempt
from sliceform.controller.reconcile.decide.sync import FOREVER, earliest_notice
from sliceform.states.slices import SliceState


def free_slices(lives: Sequence[Life]) -> list[str]:
    """Return the slices that can take a run now, oldest first."""
    return [
        life.record.id
        for life in lives
        if life.record.state is SliceState.READY and life.drain_by is None and earliest_notice(life) is None
    ]


def starts(picture: Picture, live: Sequence[Life]) -> tuple[list[StartAttempt], float]:
    """Give free slices to the runs that wait, first come first served."""
    begun: list[StartAttempt] = []
    due = FOREVER
    waiting = [run for run in picture.runs if run.waiting and run.cancel_by is None]
    free = free_slices(live) if waiting else []
    for run in waiting:
        if picture.now < run.not_before:
            due = min(due, run.not_before)
            continue
        if run.options.pinned is not None:
            if set(run.options.pinned) <= set(free):
                free = [life for life in free if life not in run.options.pinned]
                begun.append(StartAttempt(run.id, run.options.pinned))
            continue
        size, when = choose_size(picture, run, len(free))
        if not size:
            return begun, min(due, when)
        previous = run.attempts[-1].spec.members if run.attempts else ()
        members = assign(previous, free, size)
        free = [life for life in free if life not in members]
        begun.append(StartAttempt(run.id, members))
    return begun, due


def choose_size(picture: Picture, run: RunRecord, free: int) -> tuple[int, float]:
    """Return the size to start this run at now, or 0 and the loop time at which a smaller size will do.

    The largest valid size starts at once, and so does the one that a run was stopped to grow to; a smaller one when no
    slice has become ready for `settle_s`, so that a cold start does not begin small and restart.
    """
    sizes = _sizes(picture, run)
    size = max((size for size in sizes if size <= free), default=0)
    if size in {0, sizes[-1]} or (run.grown_to is not None and size >= run.grown_to):
        return size, FOREVER
    settled = max(picture.growth.changed_at, run.waiting_since) + picture.settings.settle_s
    return (size, FOREVER) if picture.now >= settled else (0, settled)


def larger(picture: Picture) -> tuple[RunRecord, int] | None:
    """Return the first run that could have more slices than its attempt has, and how many; None if none could.

    Spares stay spares, and nothing grows while a run waits for slices.
    """
    runs = picture.runs
    if picture.blind or picture.closing_by is not None or any(run.waiting for run in runs):
        return None
    growing = [run for run in runs if run.active is not None and run.active.superseded]
    candidates = [run for run in runs if _may_grow(picture, run)]
    if growing or not candidates:
        return None
    free = len(free_slices(list(picture.lives.values()))) - picture.desired.spares
    for run in candidates:
        taken = len(run.attempts[-1].spec.members)
        size = max((size for size in _sizes(picture, run) if size <= taken + free), default=0)
        if size > taken:
            return run, size
    return None


def growth(picture: Picture) -> tuple[GrowRun | None, float]:
    """Return the run that is to grow now, and the loop time at which one may."""
    waited = next((run.larger_since for run in picture.runs if run.larger_since is not None), None)
    found = larger(picture) if waited is not None else None
    if waited is None or found is None:
        return None, FOREVER
    when = waited + picture.settings.scale_up_after_s
    return (GrowRun(found[0].id, found[1]), FOREVER) if picture.now >= when else (None, when)


def _may_grow(picture: Picture, run: RunRecord) -> bool:
    """Whether a run is under way, all is well with it, and a larger size is valid for it."""
    attempt = run.active
    if attempt is None or run.cancel_by is not None or attempt.departures or attempt.outcomes:
        return False
    if run.options.pinned is not None:
        return False
    return _sizes(picture, run)[-1] > len(attempt.spec.members)


def _sizes(picture: Picture, run: RunRecord) -> tuple[int, ...]:
    return run.options.sizes or picture.desired.sizes
