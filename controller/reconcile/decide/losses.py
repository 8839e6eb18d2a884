"""Which ends of processes and agents are the loss of their host: of those nobody is to blame.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from sliceform.controller.model.events import PROCESS_LOSSES, OutcomeKind
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt, Departure, Left
from sliceform.controller.reconcile.decide.sync import earliest_notice


def corrections(attempt: Attempt, fleet: Fleet) -> Mapping[str, Left]:
    """Return the failures that prove to be losses: of slices by a notice or a node's death, of hosts by their node."""
    lives = fleet.lives
    found = {
        member: left._replace(departure=Departure.PREEMPTED)
        for member, left in attempt.departures.items()
        if left.departure is Departure.FAILED and member in lives and _taken_away(lives[member])
    }
    for rank in suspects(attempt):
        key = divmod(rank, attempt.spec.hosts_per_slice)
        member = attempt.spec.members[key[0]]
        if member not in found and _is_dead(attempt.nodes[rank][0], fleet):
            found[member] = Left(Departure.PREEMPTED, f"the node of rank {rank} died", attempt.host(key))
    return found


def suspects(attempt: Attempt) -> list[int]:
    """Return the ranks whose process or agent just vanished, on slices that are not known to be lost."""
    if not attempt.departures and not attempt.outcomes:
        return []
    per_slice = attempt.spec.hosts_per_slice
    ranks = []
    for slice_rank, member in enumerate(attempt.spec.members):
        left = attempt.departures.get(member)
        if left is not None and left.departure is Departure.PREEMPTED:
            continue
        agent_died = left is not None and left.departure is Departure.FAILED
        for host_rank in range(per_slice):
            outcome = attempt.outcomes.get((slice_rank, host_rank))
            if agent_died or (outcome is not None and outcome.kind is OutcomeKind.CRASHED):
                ranks.append(slice_rank * per_slice + host_rank)
    return ranks


def _is_dead(node: str | None, fleet: Fleet) -> bool:
    """Whether a node proves to be dead or gone; what was not read proves nothing."""
    if node is None or fleet.blind or not fleet.nodes:
        return False
    row = fleet.nodes.get(node)
    return row is None or not row.alive


def _taken_away(life: Life) -> bool:
    """Whether a notice foretold it, or a node itself died: then the end of a process of ours is no failure."""
    return earliest_notice(life) is not None or any(
        host.lost is not None and host.lost.reason not in PROCESS_LOSSES for host in life.view.hosts
    )
