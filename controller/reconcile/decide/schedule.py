"""Give slices to runs: which run starts on what size, which starts again on more, and which has waited or run too long.

Pure: reads the picture, changes nothing. Runs stand in the order of the queue: higher priority first, then as they were
submitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sliceform.controller.reconcile.decide.fleet import Picture
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import RunRecord, assign
from sliceform.controller.reconcile.decide.step import EndRun, GrowRun, StartAttempt
from sliceform.controller.reconcile.decide.sync import FOREVER, earliest_notice
from sliceform.states.slices import SliceState


class Schedule(NamedTuple):
    """Who starts now, who has to wait because slices are kept, and when to look again."""

    starts: tuple[StartAttempt, ...]
    #: The first run that free slices are kept for; empty if none are.
    keeper: str
    due: float


def free_slices(lives: Sequence[Life]) -> list[Life]:
    """Return the slices that can take a run now, oldest first."""
    return [
        life
        for life in lives
        if life.record.state is SliceState.READY and life.drain_by is None and earliest_notice(life) is None
    ]


def startable(picture: Picture, run: RunRecord) -> bool:
    """Whether a run can start at all on what is wanted, however long it waits."""
    return run.sizes[0] <= picture.desired.largest


def demand(picture: Picture) -> bool:
    """Whether a run waits for slices that it could get, or was stopped to grow: then idle ones are kept."""
    return any(_demands(picture, run) for run in picture.runs)


def _demands(picture: Picture, run: RunRecord) -> bool:
    if run.cancel_by is not None or run.options.pinned is not None:
        return False
    return run.grown_to is not None or (run.waiting and startable(picture, run))


def schedule(picture: Picture, live: Sequence[Life]) -> Schedule:
    """Give free slices to the runs that wait, in the order of the queue.

    A run that cannot start keeps none, so that younger ones may overtake it, until it has waited `overtake_s`.
    """
    free = [life.record.id for life in free_slices(live)]
    used = sum(life.record.state is SliceState.RUNNING for life in live)
    begun: list[StartAttempt] = []
    keeper, due = "", FOREVER
    for run in picture.runs:
        if not free:
            break
        if not run.waiting:
            kept = max(0, (run.grown_to or 0) - len(run.attempts[-1].spec.members))
        elif run.cancel_by is not None or not startable(picture, run):
            continue
        elif picture.now < run.not_before:
            due = min(due, run.not_before)
            continue
        elif run.options.pinned is not None:
            if set(run.options.pinned) <= set(free):
                free = [slice_id for slice_id in free if slice_id not in run.options.pinned]
                begun.append(StartAttempt(run.id, run.options.pinned))
            continue
        else:
            size, when = choose_size(picture, run, len(free), used)
            if size and when <= picture.now:
                members = assign(_previous(run), free, size)
                free = [slice_id for slice_id in free if slice_id not in members]
                used += size
                begun.append(StartAttempt(run.id, members))
                continue
            kept, due = _kept(picture, run, size, len(free), used), min(due, when)
        if kept:
            keeper = keeper or run.id
            mine = assign(_previous(run), free, min(kept, len(free)))
            free = [slice_id for slice_id in free if slice_id not in mine]
    return Schedule(tuple(begun), keeper, due)


def choose_size(picture: Picture, run: RunRecord, free: int, used: int) -> tuple[int, float]:
    """Return the size that this run can have of so many `free` slices while others use `used`, and from when on.

    The largest valid size starts at once, and so does one that the run had before or was stopped to grow to; a smaller
    one when no slice has become ready for `settle_s`, so that a cold start does not begin small and restart. Spares are
    for losses alone: a run has them only for what it had before. But nobody waits for spares to come: the smallest size
    of a run needs none to be left, as long as no more than the largest size of the fleet is in use.

    Returns:
        The size and a loop time; 0 and infinity if there are too few.

    """
    if run.sizes[0] > free:
        return 0, FOREVER
    had, spares = len(_previous(run)), picture.desired.spares
    size = max((size for size in run.sizes if size <= free - spares or size <= min(had, free)), default=0)
    if not size and run.sizes[0] <= picture.desired.largest - used:
        size = run.sizes[0]
    if not size:
        return 0, FOREVER
    if size == run.sizes[-1] or size >= (had or FOREVER):
        return size, picture.now
    return size, max(picture.added_at, run.waiting_since) + picture.settings.settle_s


def _previous(run: RunRecord) -> tuple[str, ...]:
    return run.attempts[-1].spec.members if run.attempts else ()


def _kept(picture: Picture, run: RunRecord, size: int, free: int, used: int) -> int:
    """Return how many free slices are kept for a run that does not start: what it is about to take, or all it may."""
    if size:
        return size
    if picture.now - run.waiting_since < picture.settings.overtake_s:
        return 0
    if run.attempts:
        return free
    return max(0, free - picture.desired.spares, min(free, picture.desired.largest - used))


def larger(picture: Picture) -> tuple[RunRecord, int, float] | None:
    """Return the first run that could have more slices, how many, and from which loop time on; None if none could.

    So many have to have been free for `scale_up_after_s`. Spares stay spares, and nothing grows while a run waits for
    slices that it could get.
    """
    if picture.blind or picture.closing_by is not None:
        return None
    runs = [run for run in picture.runs if _may_grow(run)]
    if not runs or demand(picture):
        return None
    since = sorted(life.record.since for life in free_slices(list(picture.lives.values())))
    since = since[picture.desired.spares :]
    for run in runs:
        taken = len(run.attempts[-1].spec.members)
        times = {size: since[size - taken - 1] for size in run.sizes if taken < size <= taken + len(since)}
        when = {size: time + picture.settings.scale_up_after_s for size, time in times.items()}
        if when:
            # The largest whose time has come, else the first to come.
            size = max(when, key=lambda size: (when[size] <= picture.now, size if when[size] <= picture.now else -size))
            return run, size, when[size]
    return None


def growth(picture: Picture) -> tuple[GrowRun | None, float]:
    """Return the run that is to grow now, and the loop time at which one may."""
    found = larger(picture)
    if found is None:
        return None, FOREVER
    run, size, when = found
    return (GrowRun(run.id, size), FOREVER) if when <= picture.now else (None, when)


def _may_grow(run: RunRecord) -> bool:
    """Whether a run is under way, all is well with it, and a larger size is valid for it."""
    attempt = run.active
    if attempt is None or run.cancel_by is not None or attempt.departures or attempt.outcomes or attempt.superseded:
        return False
    return run.options.pinned is None and run.sizes[-1] > len(attempt.spec.members)


def overdue(picture: Picture) -> tuple[tuple[EndRun, ...], float]:
    """Return the runs that have waited, or are there, longer than their options allow, and when the next one will."""
    ends: list[EndRun] = []
    due = FOREVER
    for run in picture.runs:
        limits = run.options
        if (limits.max_wait_s is None and limits.timeout_s is None) or run.cancel_by is not None:
            continue
        by = FOREVER if limits.timeout_s is None else run.submitted_at + limits.timeout_s
        detail = f"it was not over within timeout_s={limits.timeout_s:g}" if limits.timeout_s is not None else ""
        if limits.max_wait_s is not None and run.waiting and run.waiting_since + limits.max_wait_s < by:
            by = run.waiting_since + limits.max_wait_s
            detail = f"it waited for slices for max_wait_s={limits.max_wait_s:g}"
        if by <= picture.now:
            ends.append(EndRun(run.id, detail))
        else:
            due = min(due, by)
    return tuple(ends), due
