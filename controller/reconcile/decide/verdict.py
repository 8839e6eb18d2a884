"""How an attempt that is under way goes on: whom to tell, what to stop, and when it is over.

Pure: reads the attempt and the lives of its slices and returns what to do; the loop does it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from sliceform.controller.model.events import PROCESS_LOSSES, Node, OutcomeKind
from sliceform.controller.model.settings import Settings
from sliceform.controller.reconcile.decide.fence import Clear, fences, passed
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt, Departure, Left, RunRecord, Verdict, affordable, classify
from sliceform.controller.reconcile.decide.sync import FOREVER, earliest_notice, is_lost


class Oversight(NamedTuple):
    """What one look at an attempt found."""

    #: Slices that have left it, and why; what was written down as a failure may have proved to be a loss.
    departures: Mapping[str, Left]
    #: Slices on which nothing of it runs any more.
    cleared: frozenset[str]
    #: When its processes are to be stopped by force; None = not at all.
    stop_at: float | None
    #: Loop time at which something ended that may prove to be the death of a node; None if nothing did.
    doubted_at: float | None
    #: How it ended; None = it goes on.
    verdict: Verdict | None
    #: By rank: when hosts that are not known to be clear of it will count as clear, loop time; and those that do now.
    fences: Mapping[int, float] = MappingProxyType({})
    fenced: Mapping[int, Clear] = MappingProxyType({})


def oversee(
    run: RunRecord,
    attempt: Attempt,
    lives: Mapping[str, Life],
    nodes: Mapping[str, Node],
    *,
    now: float,
    epoch: float,
    settings: Settings,
) -> Oversight:
    """Look at one attempt; `now` is loop time, `epoch` the epoch time that goes with it, seconds.

    `nodes` is the node table as it was read last, by node id; empty if it was not.
    """
    departures = {**attempt.departures, **_corrections(attempt, lives, nodes)}
    doubted_at = attempt.doubted_at
    if doubted_at is None and _suspects(attempt, departures):
        doubted_at = now
    left = fences(attempt, lives, departures, now=now, settings=settings)
    fenced = passed(left, now)
    clear = attempt.clear.keys() | fenced.keys()
    cleared = frozenset(member for member in attempt.spec.members if _cleared(member, attempt, clear, departures))
    stop_at = attempt.stop_at
    if run.cancel_by is not None or departures or (attempt.troubled and not attempt.superseded):
        # Time that was given may only get shorter: by a cancel, or by a loss after a notice.
        # At the first look, also what has saved and is clear already says how long the others have.
        present = {
            member: life
            for member, life in lives.items()
            if member in departures and (member not in cleared or stop_at is None)
        }
        fresh = now + _grace(run, departures, present, settings, now=now, epoch=epoch, known=stop_at is not None)
        stop_at = fresh if stop_at is None else min(stop_at, fresh)
    verdict = None
    if attempt.succeeded or (
        len(cleared) == len(attempt.spec.members)
        and (
            run.cancel_by is not None
            or doubted_at is None
            or now - doubted_at >= verdict_s(settings)
            or not _suspects(attempt, departures)
            or affordable(run)
        )
    ):
        attempt_now = dataclasses.replace(attempt, departures=departures)
        verdict = classify(attempt_now, cancelled=run.cancel_by is not None)
    return Oversight(departures, cleared, stop_at, doubted_at, verdict, left, fenced)


def verdict_s(settings: Settings) -> float:
    """Return how long after an end without an answer the death of its node may still show, seconds."""
    return min(settings.verdict_s, 2 * settings.nodes_every_s)


def dead_suspects(attempt: Attempt, departures: Mapping[str, Left], nodes: Mapping[str, Node]) -> list[int]:
    """Return the ranks whose process or agent died as a failure would, and whose node proves to be dead or gone."""
    if not nodes:
        return []
    found = ((rank, attempt.nodes[rank][0]) for rank in _suspects(attempt, departures))
    return [rank for rank, node in found if node and ((row := nodes.get(node)) is None or not row.alive)]


def _suspects(attempt: Attempt, departures: Mapping[str, Left]) -> list[int]:
    per_slice = attempt.spec.hosts_per_slice
    preempted = {member for member, left in departures.items() if left.departure is Departure.PREEMPTED}
    ranks = []
    for slice_rank, member in enumerate(attempt.spec.members):
        if member in preempted:
            continue
        left = departures.get(member)
        agent_died = left is not None and left.departure is Departure.FAILED
        for host_rank in range(per_slice):
            outcome = attempt.outcomes.get((slice_rank, host_rank))
            if agent_died or (outcome is not None and outcome.kind is OutcomeKind.CRASHED):
                ranks.append(slice_rank * per_slice + host_rank)
    return ranks


def _corrections(attempt: Attempt, lives: Mapping[str, Life], nodes: Mapping[str, Node]) -> Mapping[str, Left]:
    """Return the failures that prove to be losses: of slices by a notice or a node's death, of hosts by their node."""
    found = {
        member: left._replace(departure=Departure.PREEMPTED)
        for member, left in attempt.departures.items()
        if left.departure is Departure.FAILED and member in lives and _taken_away(lives[member])
    }
    for rank in dead_suspects(attempt, {**attempt.departures, **found}, nodes):
        key = divmod(rank, attempt.spec.hosts_per_slice)
        detail = f"the node of rank {rank} died"
        found[attempt.spec.members[key[0]]] = Left(Departure.PREEMPTED, detail, attempt.host(key))
    return found


def _taken_away(life: Life) -> bool:
    """Whether a notice foretold it, or a node itself died: then the end of a process of ours is no failure."""
    return earliest_notice(life) is not None or any(
        host.lost is not None and host.lost.reason not in PROCESS_LOSSES for host in life.view.hosts
    )


def _cleared(member: str, attempt: Attempt, clear: Collection[int], departed: Collection[str]) -> bool:
    """Whether nothing of the attempt runs on this slice and, if the slice is still part of it, all is known."""
    slice_rank = attempt.spec.members.index(member)
    return all(
        attempt.rank_of(member, rank) in clear and (member in departed or (slice_rank, rank) in attempt.outcomes)
        for rank in range(attempt.spec.hosts_per_slice)
    )


def _grace(
    run: RunRecord,
    departures: Mapping[str, Left],
    present: Mapping[str, Life],
    settings: Settings,
    *,
    now: float,
    epoch: float,
    known: bool,
) -> float:
    """Return how long the attempt's processes may go on from now, seconds; `known` if that was decided before.

    `present` are the slices that have left and on which something of the attempt may still run.

    Slices that are noticed or drained leave time to save, also when some hosts have raised meanwhile: that is how they
    say that they have saved.
    """
    if run.cancel_by is not None:
        return 0.0  # the grace goes with the request to stop
    if any(is_lost(life) or life.record.lost for life in present.values()):
        return settings.loss_grace_s
    if departures and not present and known:
        return FOREVER  # what was noticed or drained has saved and is gone; the others keep their time
    return min(
        (_time_left(life, settings, now=now, epoch=epoch) for life in present.values()), default=settings.loss_grace_s
    )


def _time_left(life: Life, settings: Settings, *, now: float, epoch: float) -> float:
    """Return how long work may go on on a slice that is noticed or drained, seconds."""
    if life.drain_by is not None:
        return max(0.0, life.drain_by - now)
    notice = earliest_notice(life)
    deadline = notice.deadline_epoch_s if notice is not None else life.record.deadline
    return settings.drain_grace_s if deadline is None else max(0.0, deadline - epoch)


def next_look(attempt: Attempt) -> float:
    """Return the loop time at which time alone changes how the attempt goes on."""
    stop_at = FOREVER if attempt.stopped or attempt.stop_at is None else attempt.stop_at
    return min([stop_at, *(at for rank, at in attempt.fences.items() if rank not in attempt.clear)])
