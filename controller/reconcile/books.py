"""Keep the books of slices: what is remembered besides a record's state with each move and each note."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sliceform.controller.model.events import PROCESS_LOSSES
from sliceform.controller.reconcile import requests
from sliceform.controller.reconcile.decide.fold import fold_node
from sliceform.controller.reconcile.decide.life import Life, Loss
from sliceform.controller.reconcile.decide.policy import Vacancy
from sliceform.controller.reconcile.decide.run import Departure, Left
from sliceform.controller.reconcile.decide.step import Step
from sliceform.controller.reconcile.decide.sync import earliest_notice, silent_ranks
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.hosts import HostTrigger
from sliceform.states.reasons import Reason
from sliceform.states.records import HostRecord
from sliceform.states.slices import SliceState, SliceTrigger

#: Expiries after which trying again at once would fail again.
_FAILURES = frozenset(
    {
        Reason.PLACE_REFUSED,
        Reason.AGENT_FAILED,
        Reason.WRONG_DEVICES,
        Reason.WRONG_NODE,
        Reason.BUDGET_SPENT,
    }
)
#: States in which a slice works for no attempt any more.
_LEAVING = frozenset({SliceState.PREEMPTED, SliceState.DRAINING})


def begin(ledger: Ledger, step: Step) -> None:
    """Take a new slice in, before its entry."""
    fleet = ledger.fleet
    generation = fleet.desired.generation
    life = Life.begin(step.slice_id, fleet.hosts, generation=generation, replaces=step.cause)
    fleet.lives[step.slice_id] = life
    fleet.next_number += 1
    life.vacancy = next((vacancy for vacancy in fleet.vacancies if vacancy.slice_id == step.cause), None)
    if life.vacancy is not None:
        fleet.vacancies.remove(life.vacancy)


def slice_moved(ledger: Ledger, life: Life, step: Step) -> None:
    """Write down what goes with a slice's transition, before its effects are asked for."""
    if life.record.state in _LEAVING:
        _leave_attempt(ledger, life, step)
    keep = _BOOKS.get(step.trigger)  # type: ignore[arg-type]
    if keep is not None:
        keep(ledger, life, step)


def host_moved(ledger: Ledger, life: Life, host: HostRecord, step: Step) -> None:
    """Write down what goes with a host's transition."""
    life.record.version += 1
    if step.trigger is HostTrigger.PLACE:
        host.node_id = life.view.hosts[host.rank].node_id
        _use(ledger, life, host.node_id, host.rank)
    elif step.trigger is HostTrigger.FINISH:
        life.noted_end = True


def noted(ledger: Ledger, life: Life, step: Step) -> None:
    """Write down what goes with a note about a slice."""
    if step.reason is Reason.LOST_AFTER_NOTICE:
        life.noted_loss = True
    elif step.reason in {Reason.NOTICE_MERGED, Reason.NOTICE_WITHDRAWN}:
        life.noted_notice = earliest_notice(life)
        life.record.deadline = life.noted_notice.deadline_epoch_s if life.noted_notice else life.record.deadline
    elif step.reason is Reason.HELD_UP:
        life.noted_held_up = life.view.held_up
    elif step.reason is Reason.STUCK:
        life.noted_stuck = True
    elif step.reason is Reason.WORK_ENDED:
        life.noted_end = True
    elif step.reason is Reason.HURRIED:
        requests.hurry(ledger, life)


def _leave_attempt(ledger: Ledger, life: Life, step: Step) -> None:
    """Write into the attempt that the slice works for that it leaves, and why."""
    attempt = ledger.attempts.get(life.record.attempt or "")
    if attempt is None:
        return
    host = step.cause or life.record.id
    if step.trigger is SliceTrigger.DRAIN:
        left = Left(Departure.TAKEN, step.detail or "drained", host)
    elif step.reason in PROCESS_LOSSES:
        left = Left(Departure.FAILED, f"{step.detail} ({step.reason.value})", host)
    else:
        left = Left(Departure.PREEMPTED, step.detail, host)
    attempt.leave(life.record.id, left)


def _use(ledger: Ledger, life: Life, node_id: str | None, rank: int | None) -> None:
    """Remember who uses a node, and look at once whether it is alive."""
    if node_id is None:
        return
    ledger.users.setdefault(node_id, set()).add((life.record.id, rank))
    row = ledger.fleet.nodes.get(node_id)
    if row is None:
        ledger.unseen[node_id] = False
    else:
        fold_node(life, rank, node_id, row)


def _placed(ledger: Ledger, life: Life, _: Step) -> None:
    life.record.place = life.view.place
    _use(ledger, life, life.view.head_node, None)
    if life.record.place is not None:
        ledger.place_map.hold(life.record.place, life.record.id)


def _prepared(ledger: Ledger, life: Life, _: Step) -> None:
    ledger.fleet.added_at = ledger.fleet.now
    life.vacancy = None


def _finished(ledger: Ledger, life: Life, _: Step) -> None:
    # Not before: agents that die again and again were all ready first.
    for node in life.view.nodes:
        ledger.fleet.places.worked(node or "")
    life.record.attempt = None
    life.over = None
    life.noted_end = False
    life.view.outcomes.clear()


def _preempted(ledger: Ledger, life: Life, step: Step) -> None:
    fleet, record = ledger.fleet, life.record
    record.lost = step.reason is not Reason.PREEMPTION_NOTICE
    life.noted_notice = earliest_notice(life)
    record.deadline = life.noted_notice.deadline_epoch_s if life.noted_notice is not None else None
    fleet.lost_at = fleet.now
    fleet.vacancies.append(Vacancy.of(record.id, life.vacancy, lost=True))
    if step.reason in PROCESS_LOSSES:
        # The place is as good as before; one where processes die again and again is not.
        _count_failure(ledger, life, step)
        return
    nodes = _lost_nodes(ledger, life)
    # A TPU slice is lost as a whole; elsewhere the neighbours are as good as before.
    places = {life.view.place: nodes} if life.view.place else {node: frozenset({node}) for node in sorted(nodes)}
    for place, gone in places.items() if nodes else ():
        fleet.places.lost(place, gone, fleet.now, f"{record.id}: {step.reason.value}")


def _expired(ledger: Ledger, life: Life, step: Step) -> None:
    fleet, record = ledger.fleet, life.record
    ledger.place_map.give_up(record.place or "", record.id)
    vacancy = Vacancy.of(record.id, life.vacancy)
    if step.reason not in _FAILURES:
        fleet.vacancies.append(vacancy)
        return
    detail = f"{record.id}: {step.detail or step.reason.value}"
    fleet.vacancies.append(vacancy.failed(fleet.backoff, fleet.now, detail))
    _count_failure(ledger, life, step)


def _count_failure(ledger: Ledger, life: Life, step: Step) -> None:
    """Count against the hosts that a slice failed because of; too often, and their place is not used for a while."""
    fleet, record = ledger.fleet, life.record
    for node in _culprits(life, step):
        place = life.view.place or node
        if fleet.places.failed(place, node, fleet.now, f"{step.reason.value}: {step.detail}"):
            detail = f"{place} is not used for {ledger.settings.quarantine_s:g} s, or until nothing else is free"
            ledger.note(record, Reason.QUARANTINED, detail)


def _drained(ledger: Ledger, life: Life, step: Step) -> None:
    ledger.place_map.give_up(life.record.place or "", life.record.id)
    if step.reason is Reason.OPERATOR:
        ledger.fleet.vacancies.append(Vacancy.of(life.record.id, life.vacancy, lost=True))


def _released(ledger: Ledger, life: Life, _: Step) -> None:
    record = life.record
    del ledger.fleet.lives[record.id]
    ledger.place_map.leave(record.place or "", record.id)
    ledger.outbox.drop(record.id)
    ledger.released.append(record.id)
    for node in (*life.view.nodes, life.view.head_node):
        users = ledger.users.get(node or "")
        if users is not None:
            users -= {user for user in users if user[0] == record.id}
            if not users:
                del ledger.users[node or ""]


def _lost_nodes(ledger: Ledger, life: Life) -> frozenset[str]:
    """Return the nodes that a slice was lost with: dead, noticed or silent ones. What else ended leaves a node as good.

    So after somebody has removed a group, or where agents end beside a node that died, nothing is avoided for it.
    """
    view, fleet = life.view, ledger.fleet
    silent = silent_ranks(life, fleet.now, ledger.settings.effective_silence_s)
    nodes = {
        host.node_id for rank, host in enumerate(view.hosts) if _is_dead(host.lost) or host.notices or rank in silent
    }
    if _is_dead(view.lost):
        nodes.add(view.head_node)
    return frozenset(node for node in nodes if node)


def _is_dead(loss: Loss | None) -> bool:
    return loss is not None and loss.reason in {Reason.NODE_DIED, Reason.NODE_GONE}


def _culprits(life: Life, step: Step) -> list[str]:
    """Return the nodes that a slice failed because of: of the host in question, or of those that did not answer."""
    view = life.view
    accused = [host for host in life.record.hosts if host.id == step.cause]
    late = [host for host in life.record.hosts if view.hosts[host.rank].agent_node is None]
    nodes = [view.hosts[host.rank].node_id for host in accused or late]
    # Where no host has been placed, the head is all that is known of a slice.
    return [node for node in dict.fromkeys(nodes if any(nodes) else [view.head_node]) if node]


_BOOKS: Mapping[SliceTrigger, Callable[[Ledger, Life, Step], None]] = {
    SliceTrigger.PLACE: _placed,
    SliceTrigger.PREPARE: _prepared,
    SliceTrigger.FINISH: _finished,
    SliceTrigger.PREEMPT: _preempted,
    SliceTrigger.EXPIRE: _expired,
    SliceTrigger.DRAIN: _drained,
    SliceTrigger.RELEASE: _released,
}
