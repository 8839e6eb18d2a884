"""Give slices to runs: which run starts on what size, and which starts again on more.

Pure: reads the fleet, changes nothing. Runs stand in the order of the queue: higher priority first, then as they were
submitted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import RunRecord, assign
from sliceform.controller.reconcile.decide.step import Growth, Members, WorkStep
from sliceform.controller.reconcile.decide.sync import FOREVER, earliest_notice
from sliceform.states.attempts import AttemptState, AttemptTrigger
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunTrigger
from sliceform.states.slices import SliceState


class Schedule(NamedTuple):
    """Who starts now, who has to wait because slices are kept, and when to look again."""

    starts: tuple[WorkStep, ...]
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


def startable(fleet: Fleet, run: RunRecord) -> bool:
    """Whether a run can start at all on what is wanted, however long it waits."""
    return run.sizes[0] <= fleet.desired.largest


def demand(fleet: Fleet) -> bool:
    """Whether a run waits for slices that it could get, or is about to: then idle ones are kept."""
    return any(_demands(fleet, run) for run in fleet.runs)


def _demands(fleet: Fleet, run: RunRecord) -> bool:
    if run.cancel_by is not None or run.options.pinned is not None:
        return False
    active = run.active
    # Its attempt has lost a slice, or has ended: it comes back for more than it has now.
    again = not run.waiting and (active is None or (active.state is AttemptState.STOPPING and bool(active.departures)))
    return run.grown_to is not None or ((run.waiting or again) and startable(fleet, run))


class _Pool:
    """The free slices, while the runs are given theirs one after the other."""

    def __init__(self, fleet: Fleet, live: Sequence[Life], free: Sequence[Life]) -> None:
        """Begin with all that are free of those that are there."""
        self._fleet = fleet
        self.free = [life.record.id for life in free]
        self.used = sum(life.record.state is SliceState.RUNNING for life in live)
        self.first_start = for_a_first_start(fleet, len(self.free), self.used)

    def choose(self, run: RunRecord, count: int) -> tuple[str, ...]:
        """Return so many free slices, or all if there are fewer: those that the run had before come first."""
        return assign(_previous(run), self.free, min(count, len(self.free))) if count > 0 else ()

    def take(self, slices: Sequence[str], *, use: bool) -> None:
        """Take slices out, to `use` them or to keep them."""
        if slices:
            taken = set(slices)
            self.free = [slice_id for slice_id in self.free if slice_id not in taken]
            self.used += len(slices) * use
            self.first_start = for_a_first_start(self._fleet, len(self.free), self.used)


def schedule(fleet: Fleet, live: Sequence[Life]) -> Schedule:
    """Give free slices to the runs that wait, in the order of the queue.

    A run that cannot start keeps none, so that younger ones may overtake it, until it has waited `overtake_s`.
    """
    free = free_slices(live)
    if not free:
        return Schedule((), "", FOREVER)
    pool = _Pool(fleet, live, free)
    begun: list[WorkStep] = []
    keeper, due = "", FOREVER
    for run in _in_turn(fleet, pool):
        members, kept, when = _turn(fleet, run, pool)
        due = min(due, when)
        if members:
            detail = f"attempt {run.tries + 1} on {', '.join(members)}"
            begun.append(WorkStep(run.id, RunTrigger.START, Reason.ATTEMPT_STARTED, detail, given=Members(members)))
        elif kept:
            keeper = keeper or run.id
        pool.take(members or kept, use=bool(members))
    return Schedule(tuple(begun), keeper, due)


def _in_turn(fleet: Fleet, pool: _Pool) -> Iterator[RunRecord]:
    """Yield the runs that may start or keep something, while slices are free: most of a long queue can do neither."""
    patient_since = fleet.now - fleet.settings.overtake_s
    for run in fleet.runs:
        if not pool.free:
            return
        most = len(pool.free) if run.attempts else pool.first_start
        # Asked in this order, as most of a long queue has never begun.
        undecided = bool(run.attempts) and not run.waiting and run.active is None
        if run.sizes[0] <= most or run.since <= patient_since or run.grown_to is not None or undecided:
            yield run


def _turn(fleet: Fleet, run: RunRecord, pool: _Pool) -> tuple[tuple[str, ...], tuple[str, ...], float]:
    """Return what a run starts on now, else what is kept for it, and when that may change by itself."""
    pinned = run.options.pinned
    if run.cancel_by is not None:
        return (), (), FOREVER
    if not run.waiting:
        # One whose attempt has ended, and of which it is not known yet what follows, may start again where it was.
        taken = len(_previous(run)) if run.active is not None else 0
        return (), pool.choose(run, (run.grown_to or len(_previous(run))) - taken), FOREVER
    if not startable(fleet, run):
        return (), (), FOREVER
    if fleet.now < run.not_before:
        return (), (), run.not_before
    if pinned is not None:
        return pinned if set(pinned) <= set(pool.free) else (), (), FOREVER
    size, when = choose_size(fleet, run, len(pool.free), pool.used)
    if size and when <= fleet.now:
        return pool.choose(run, size), (), FOREVER
    return (), pool.choose(run, _kept(fleet, run, size, pool)), when


def choose_size(fleet: Fleet, run: RunRecord, free: int, used: int) -> tuple[int, float]:
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
    had, spares = len(_previous(run)), fleet.desired.spares
    size = max((size for size in run.sizes if size <= free - spares or size <= min(had, free)), default=0)
    if not size and run.sizes[0] <= for_a_first_start(fleet, free, used):
        size = run.sizes[0]
    if not size:
        return 0, FOREVER
    if size == run.sizes[-1] or size >= (had or FOREVER):
        return size, fleet.now
    return size, max(fleet.added_at, run.since) + fleet.settings.settle_s


def _previous(run: RunRecord) -> tuple[str, ...]:
    return run.attempts[-1].spec.members if run.attempts else ()


def for_a_first_start(fleet: Fleet, free: int, used: int) -> int:
    """Return how many of the free slices a first start may take at most: not the spares, if they are there."""
    return max(0, free - fleet.desired.spares, min(free, fleet.desired.largest - used))


def _kept(fleet: Fleet, run: RunRecord, size: int, pool: _Pool) -> int:
    """Return how many free slices are kept for a run that does not start: what it is about to take, or all it may."""
    if size:
        return size
    if fleet.now - run.since < fleet.settings.overtake_s:
        return 0
    return len(pool.free) if run.attempts else pool.first_start


def larger(fleet: Fleet) -> tuple[RunRecord, int, float] | None:
    """Return the first run that could have more slices, how many, and from which loop time on; None if none could.

    So many have to have been free for `scale_up_after_s`. Spares stay spares, and nothing grows while a run waits for
    slices that it could get.
    """
    if fleet.blind or fleet.closing_by is not None:
        return None
    if demand(fleet):
        return None
    runs = [run for run in fleet.runs if _may_grow(run)]
    if not runs:
        return None
    since = sorted(life.record.since for life in free_slices(list(fleet.lives.values())))
    since = since[fleet.desired.spares :]
    for run in runs:
        taken = len(run.attempts[-1].spec.members)
        times = {size: since[size - taken - 1] for size in run.sizes if taken < size <= taken + len(since)}
        when = {size: time + fleet.settings.scale_up_after_s for size, time in times.items()}
        if when:
            # The largest whose time has come, else the first to come.
            size = max(when, key=lambda size: (when[size] <= fleet.now, size if when[size] <= fleet.now else -size))
            return run, size, when[size]
    return None


def growth(fleet: Fleet, leaving: Collection[str] = ()) -> tuple[WorkStep | None, float]:
    """Have the work of the run that is to grow now save and stop; and say from which loop time on one may.

    One of whose slices are `leaving` stops for that.
    """
    found = larger(fleet)
    if found is None or not set(leaving).isdisjoint(found[0].attempts[-1].spec.members):
        return None, FOREVER
    run, size, when = found
    if when > fleet.now:
        return None, when
    spec = run.attempts[-1].spec
    detail = f"to grow from {len(spec.members)} to {size} slices"
    step = WorkStep(spec.key, AttemptTrigger.STOP, Reason.ATTEMPT_SUPERSEDED, detail, given=Growth(size))
    return step, FOREVER


def _may_grow(run: RunRecord) -> bool:
    """Whether a run is under way, all is well with it, and a larger size is valid for it."""
    attempt = run.active
    if attempt is None or attempt.state is AttemptState.STOPPING or attempt.outcomes or run.cancel_by is not None:
        return False
    return run.options.pinned is None and run.sizes[-1] > len(attempt.spec.members)
