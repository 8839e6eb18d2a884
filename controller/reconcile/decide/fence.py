"""Fencing: from when each host of an attempt is clear of it, so that nothing of two attempts ever runs at a time.

Pure. A host is clear when its agent has seen the end of the attempt's processes, when it died as a whole, or when it
was not heard for so long that its agent has ended them by its own clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sliceform.controller.model.settings import Settings
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt
from sliceform.controller.reconcile.decide.sync import is_lost
from sliceform.states.slices import SliceState


def fences(
    attempt: Attempt, lives: Mapping[str, Life], departed: Collection[str], *, now: float, settings: Settings
) -> dict[int, float]:
    """Return by rank at which loop time a host counts as clear of the attempt though nothing is known of it.

    Only of slices that have left the attempt: a slice that is part of it answers, or it is lost. The time counts from
    when the host was heard last, as its agent's own does; a host that was given time to end its work has that first.
    """
    fence_s = settings.effective_fence_s
    found: dict[int, float] = {}
    for slice_rank, member in enumerate(attempt.spec.members):
        if member not in departed:
            continue
        life = lives.get(member)
        for host_rank in range(attempt.spec.hosts_per_slice):
            rank = slice_rank * attempt.spec.hosts_per_slice + host_rank
            if rank in attempt.clear:
                continue
            if life is None:
                found[rank] = attempt.fences.get(rank, now + fence_s)
            elif (since := _since(attempt, life, host_rank, now)) is not None:
                found[rank] = since + fence_s
    return found


def _since(attempt: Attempt, life: Life, host_rank: int, now: float) -> float | None:
    heard = min(now, life.heard[host_rank])
    if life.record.lost or is_lost(life) is not None:
        return heard
    if life.record.state is SliceState.DRAINING and attempt.stop_at is not None and now >= attempt.stop_at:
        return max(heard, attempt.stop_at)
    return None
