"""Commit one step: move the record through its table, keep the books, and put the effects into the outbox.

Nothing here acts on the world: effects are submitted after the tick's commits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sliceform.controller.model.effects import Assemble, Launch, Notify, Release, Request, Reserve
from sliceform.controller.model.events import PROCESS_LOSSES, Loss
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.reconcile.decide.fold import fold_node
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.policy import Vacancy
from sliceform.controller.reconcile.decide.run import Departure, Left
from sliceform.controller.reconcile.decide.step import Step
from sliceform.controller.reconcile.decide.sync import earliest_notice, silent_ranks
from sliceform.controller.reconcile.kinds import choose_kind
from sliceform.controller.reconcile.ledger import Fleet
from sliceform.states.effects import Effect
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


def commit(fleet: Fleet, step: Step) -> None:
    """Make one step happen.

    Raises:
        InvalidTransition: the table has no such row; nothing has changed.

    """
    if step.trigger is SliceTrigger.CREATE and step.rank is None:
        _begin(fleet, step)
    life = fleet.picture.lives[step.life]
    if step.trigger is None:
        _note(fleet, life, step)
    elif step.rank is None:
        _commit_slice(fleet, life, step)
    else:
        _commit_host(fleet, life, life.record.hosts[step.rank], step)


def renew(fleet: Fleet) -> None:
    """Ask anew for reservations that wait where other places are to be kept away from now.

    Of those that keep away from TPU slices which have come free, no more than there are such slices.
    """
    picture, outlook = fleet.picture, fleet.outlook
    waiting = [life for life in picture.lives.values() if life.waits_for_reservation]
    missed = [life for life in waiting if life.asked is not None and outlook.is_missed_by(life.asked)]
    if isinstance(fleet.shape, TpuSlice):
        # All others that wait can take them as well.
        others = len(waiting) - len(missed)
        missed = missed[: max(1, len(outlook.free) - others)]
    trapped = [life for life in waiting if life.asked is not None and outlook.traps_it(life.asked)]
    for life in dict.fromkeys([*trapped, *missed]):
        ask_anew(fleet, life)


def ask_anew(fleet: Fleet, life: Life) -> None:
    """Ask for a reservation that waits as it would be asked for now."""
    fleet.outbox.put(_reserve(fleet, life), fleet.picture.now)


def _begin(fleet: Fleet, step: Step) -> None:
    picture = fleet.picture
    generation = picture.desired.generation
    life = Life.begin(step.life, picture.hosts, generation=generation, replaces=step.cause)
    picture.lives[step.life] = life
    picture.next_number += 1
    life.vacancy = next((vacancy for vacancy in picture.vacancies if vacancy.slice_id == step.cause), None)
    if life.vacancy is not None:
        picture.vacancies.remove(life.vacancy)


def _commit_slice(fleet: Fleet, life: Life, step: Step) -> None:
    picture, record = fleet.picture, life.record
    row = fleet.slices.fire(
        record,
        step.trigger,  # type: ignore[arg-type]
        now=picture.now,
        at=picture.epoch,
        tick=fleet.tick,
        reason=step.reason,
        detail=step.detail,
        cause=step.cause,
    )
    if row.dest in _LEAVING:
        _leave_attempt(fleet, life, step)
    keep = _BOOKS.get(row.trigger)
    if keep is not None:
        keep(fleet, life, step)
    for effect in row.effects:
        request = _request(fleet, life, effect)
        if request is not None:
            fleet.outbox.put(request, picture.now)


def _leave_attempt(fleet: Fleet, life: Life, step: Step) -> None:
    """Write into the attempt that the slice works for that it leaves, and why."""
    attempt = fleet.attempts.get(life.record.run_id or "")
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


def _commit_host(fleet: Fleet, life: Life, host: HostRecord, step: Step) -> None:
    picture = fleet.picture
    fleet.hosts.fire(
        host,
        step.trigger,  # type: ignore[arg-type]
        now=picture.now,
        at=picture.epoch,
        tick=fleet.tick,
        reason=step.reason,
        detail=step.detail,
        cause=step.cause,
    )
    life.record.version += 1
    if step.trigger is HostTrigger.PLACE:
        host.node_id = life.view.hosts[host.rank].node_id
        _use(fleet, life, host.node_id, host.rank)
    elif step.trigger is HostTrigger.FINISH:
        life.noted_end = True


def _note(fleet: Fleet, life: Life, step: Step) -> None:
    picture = fleet.picture
    fleet.slices.note(
        life.record, at=picture.epoch, tick=fleet.tick, reason=step.reason, detail=step.detail, cause=step.cause
    )
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
        fleet.outbox.put(_release(fleet, life, picture.work_until(life)), picture.now)


def _use(fleet: Fleet, life: Life, node_id: str | None, rank: int | None) -> None:
    """Remember who uses a node, and look at once whether it is alive."""
    if node_id is None:
        return
    fleet.users.setdefault(node_id, set()).add((life.record.id, rank))
    row = fleet.nodes.get(node_id)
    if row is not None:
        fold_node(life, rank, node_id, row)


def _placed(fleet: Fleet, life: Life, _: Step) -> None:
    life.record.place = life.view.place
    _use(fleet, life, life.view.head_node, None)
    if life.record.place is not None:
        fleet.place_map.hold(life.record.place, life.record.id)


def _prepared(fleet: Fleet, life: Life, _: Step) -> None:
    fleet.picture.added_at = fleet.picture.now
    life.vacancy = None


def _finished(fleet: Fleet, life: Life, _: Step) -> None:
    # Not before: agents that die again and again were all ready first.
    for node in life.view.nodes:
        fleet.picture.places.worked(node or "")
    life.record.run_id = None
    life.over = None
    life.noted_end = False
    life.view.outcomes.clear()


def _preempted(fleet: Fleet, life: Life, step: Step) -> None:
    picture, record = fleet.picture, life.record
    record.lost = step.reason is not Reason.PREEMPTION_NOTICE
    life.noted_notice = earliest_notice(life)
    record.deadline = life.noted_notice.deadline_epoch_s if life.noted_notice is not None else None
    picture.lost_at = picture.now
    picture.vacancies.append(Vacancy.of(record.id, life.vacancy, lost=True))
    if step.reason in PROCESS_LOSSES:
        # The place is as good as before; one where processes die again and again is not.
        _count_failure(fleet, life, step)
        return
    nodes = _lost_nodes(fleet, life)
    # A TPU slice is lost as a whole; elsewhere the neighbours are as good as before.
    places = {life.view.place: nodes} if life.view.place else {node: frozenset({node}) for node in sorted(nodes)}
    for place, gone in places.items() if nodes else ():
        picture.places.lost(place, gone, picture.now, f"{record.id}: {step.reason.value}")


def _expired(fleet: Fleet, life: Life, step: Step) -> None:
    picture, record = fleet.picture, life.record
    fleet.place_map.give_up(record.place or "", record.id)
    vacancy = Vacancy.of(record.id, life.vacancy)
    if step.reason not in _FAILURES:
        picture.vacancies.append(vacancy)
        return
    detail = f"{record.id}: {step.detail or step.reason.value}"
    picture.vacancies.append(vacancy.failed(picture.backoff, picture.now, detail))
    _count_failure(fleet, life, step)


def _count_failure(fleet: Fleet, life: Life, step: Step) -> None:
    """Count against the hosts that a slice failed because of; too often, and their place is not used for a while."""
    picture, record = fleet.picture, life.record
    for node in _culprits(life, step):
        place = life.view.place or node
        if picture.places.failed(place, node, picture.now, f"{step.reason.value}: {step.detail}"):
            detail = f"{place} is not used for {fleet.settings.quarantine_s:g} s, or until nothing else is free"
            fleet.slices.note(record, at=picture.epoch, tick=fleet.tick, reason=Reason.QUARANTINED, detail=detail)


def _drained(fleet: Fleet, life: Life, step: Step) -> None:
    fleet.place_map.give_up(life.record.place or "", life.record.id)
    if step.reason is Reason.OPERATOR:
        fleet.picture.vacancies.append(Vacancy.of(life.record.id, life.vacancy, lost=True))


def _released(fleet: Fleet, life: Life, _: Step) -> None:
    record = life.record
    del fleet.picture.lives[record.id]
    fleet.place_map.leave(record.place or "", record.id)
    fleet.outbox.drop(record.id)
    fleet.released.append(record.id)
    for node in (*life.view.nodes, life.view.head_node):
        users = fleet.users.get(node or "")
        if users is not None:
            users -= {user for user in users if user[0] == record.id}
            if not users:
                del fleet.users[node or ""]


def _lost_nodes(fleet: Fleet, life: Life) -> frozenset[str]:
    """Return the nodes that a slice was lost with: dead, noticed or silent ones. What else ended leaves a node as good.

    So after somebody has removed a group, or where agents end beside a node that died, nothing is avoided for it.
    """
    view, picture = life.view, fleet.picture
    silent = silent_ranks(life, picture.now, fleet.settings.effective_silence_s)
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


_BOOKS: Mapping[SliceTrigger, Callable[[Fleet, Life, Step], None]] = {
    SliceTrigger.PLACE: _placed,
    SliceTrigger.PREPARE: _prepared,
    SliceTrigger.FINISH: _finished,
    SliceTrigger.PREEMPT: _preempted,
    SliceTrigger.EXPIRE: _expired,
    SliceTrigger.DRAIN: _drained,
    SliceTrigger.RELEASE: _released,
}


def _request(fleet: Fleet, life: Life, effect: Effect) -> Request | None:
    """Say in full what an effect of this life asks for; None if there is nothing to ask."""
    record, shape = life.record, fleet.shape
    if effect is Effect.RESERVE:
        return _reserve(fleet, life)
    if effect is Effect.ASSEMBLE:
        return Assemble(record.id, shape, record.place, fleet.place_map.units(record.place))
    if effect is Effect.LAUNCH:
        spec = fleet.attempts[record.run_id or ""].spec
        return Launch(record.id, shape, spec, spec.members.index(record.id))
    if effect is Effect.NOTIFY:
        if record.run_id is None or record.lost:
            return None
        return Notify(record.id, record.run_id, record.deadline)
    return _release(fleet, life, _work_until(fleet, life))


def _work_until(fleet: Fleet, life: Life) -> float:
    """Return by when work on a slice that is let go of has to be gone, loop time: now, unless a person asked."""
    picture, record = fleet.picture, life.record
    if record.run_id is None or record.reason not in {Reason.CLOSED, Reason.OPERATOR}:
        return picture.now
    return picture.work_until(life)


def _release(fleet: Fleet, life: Life, until: float) -> Release:
    life.release_by = until
    grace_s = max(0.0, until - fleet.picture.now)
    lost = life.record.lost or life.noted_loss
    return Release(life.record.id, grace_s, lost, life.record.run_id)


def _reserve(fleet: Fleet, life: Life) -> Reserve:
    """Ask for a reservation wherever one may go now."""
    outlook = fleet.outlook
    kind = choose_kind(fleet, life)
    life.asked = Reserve(life.record.id, fleet.shape, outlook.avoid, outlook.avoid_nodes, kind)
    life.asked_at = fleet.picture.now
    return life.asked
