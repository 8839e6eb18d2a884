"""What became of one slice: compare its record with what was observed, and return the facts.

Pure and level-triggered: the same record and view always give the same steps, whatever events led there, and a record
that agrees with its view gives none. Only facts come from here; decisions are `plan`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

from sliceform.controller.model.finding import same, write
from sliceform.controller.reconcile.decide.life import HostView, Life, Limits, Loss, Notice
from sliceform.controller.reconcile.decide.step import Step
from sliceform.states.hosts import HostState, HostTrigger
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState, SliceTrigger

FOREVER = float("inf")


def sync(life: Life, now: float, limits: Limits) -> list[Step]:
    """Return the facts about this life that its record does not show yet, in the order to commit them."""
    state = life.record.state
    if state is SliceState.PENDING:
        return list(_pending(life, now, limits))
    if state is SliceState.PLACED:
        return list(_lost(life, now, limits) or _placed(life, now, limits))
    if state in {SliceState.READY, SliceState.RUNNING}:
        return list(_lost(life, now, limits) or _working(life))
    if state is SliceState.PREEMPTED:
        return [*_preempted(life), *_work_ended(life)]
    if state is SliceState.DRAINING:
        return [*_work_ended(life), *_draining(life, now, limits)]
    return []


def due(life: Life, limits: Limits) -> float:
    """Return the loop time at which time alone may change what `sync` says of this life."""
    record = life.record
    if record.state is SliceState.PENDING:
        return record.since + limits.pending_s
    if record.state is SliceState.DRAINING:
        return FOREVER if life.noted_stuck else record.since + limits.stuck_s
    if record.state is SliceState.PLACED:
        return min(record.since + limits.placed_s, _silent_at(life, limits))
    if record.state in {SliceState.READY, SliceState.RUNNING}:
        return _silent_at(life, limits)
    return FOREVER


def silent_ranks(life: Life, now: float, silence_s: float) -> list[int]:
    """Return the hosts that have answered once but have not been heard, or whose daemon has not, for `silence_s`."""
    heard, raylet = life.heard, life.raylet_heard
    return [
        rank
        for rank, host in enumerate(life.view.hosts)
        if host.agent_node is not None and min(heard[rank], raylet[rank]) + silence_s <= now
    ]


def _silent_at(life: Life, limits: Limits) -> float:
    heard, raylet = life.heard, life.raylet_heard
    return min(
        (
            min(heard[rank], raylet[rank]) + limits.silence_s
            for rank, host in enumerate(life.view.hosts)
            if host.agent_node is not None
        ),
        default=FOREVER,
    )


def _pending(life: Life, now: float, limits: Limits) -> Iterator[Step]:
    view, record = life.view, life.record
    if view.refused is not None:
        yield Step(record.id, None, SliceTrigger.EXPIRE, Reason.PLACE_REFUSED, view.refused)
    elif view.reserved and (why_not := _misplaced(life, limits)) is not None:
        yield Step(record.id, None, SliceTrigger.EXPIRE, Reason.PLACE_AVOIDED, why_not)
    elif view.reserved:
        yield Step(record.id, None, SliceTrigger.PLACE, Reason.PLACED, f"on {view.place}" if view.place else "")
    elif now - record.since >= limits.pending_s:
        detail = f"no reservation within {limits.pending_s:g} s"
        yield Step(record.id, None, SliceTrigger.EXPIRE, Reason.BUDGET_SPENT, detail)
    elif view.held_up and not same(view.held_up, life.noted_held_up):
        yield Step(record.id, None, None, Reason.HELD_UP, write(view.held_up))


def _misplaced(life: Life, limits: Limits) -> str | None:
    """Return why a slice must not be made where its reservation is, if it must not."""
    view = life.view
    place = view.place or ""
    if place in limits.avoid:
        return f"{place} is not to be used now"
    if (fault := _not_whole(place, limits)) is not None:
        return fault
    owner = limits.owners.get(place, life.record.id)
    if owner != life.record.id:
        return f"{place} is the place of {owner}"
    kinds = sorted({kind for node in view.nodes if (kind := limits.kinds.get(node or "")) is not None})
    return f"its nodes have different accelerators: {', '.join(kinds)}" if len(kinds) > 1 else None


def _not_whole(place: str, limits: Limits) -> str | None:
    fault = limits.barred.get(place)
    return None if fault is None else f"{place} is not whole: {fault}"


def _placed(life: Life, now: float, limits: Limits) -> Iterator[Step]:
    record, view = life.record, life.view
    if (fault := _not_whole(record.place or "", limits)) is not None:
        yield Step(record.id, None, SliceTrigger.EXPIRE, Reason.PLACE_AVOIDED, fault)
        return
    ready = 0
    steps: list[Step] = []
    for host, seen in zip(record.hosts, view.hosts, strict=True):
        trouble = _unfit(seen, limits.devices)
        if trouble is not None:
            detail = f"host {host.rank}: {trouble.detail}"
            yield Step(record.id, None, SliceTrigger.EXPIRE, trouble.reason, detail, host.id)
            return
        if host.state is HostState.READY:
            ready += 1
            continue
        if seen.node_id is None:
            continue
        if host.state is HostState.PENDING:
            steps.append(Step(record.id, host.rank, HostTrigger.PLACE, Reason.PLACED, f"on node {seen.node_id[:8]}"))
        if seen.agent_node is not None:
            steps.append(Step(record.id, host.rank, HostTrigger.PREPARE, Reason.AGENTS_ANSWERED))
            ready += 1
    yield from steps
    if ready == len(record.hosts):
        yield Step(record.id, None, SliceTrigger.PREPARE, Reason.AGENTS_ANSWERED)
    elif now - record.since >= limits.placed_s:
        detail = f"{len(record.hosts) - ready} of {len(record.hosts)} hosts not ready within {limits.placed_s:g} s"
        yield Step(record.id, None, SliceTrigger.EXPIRE, Reason.BUDGET_SPENT, detail)


def _unfit(host: HostView, devices: int) -> Loss | None:
    """Return why this host can never be ready, if it cannot."""
    if host.failed is not None:
        return Loss(Reason.AGENT_FAILED, host.failed)
    if host.agent_node is None or host.node_id is None:
        return None
    if host.agent_node != host.node_id:
        return Loss(Reason.WRONG_NODE, f"agent on node {host.agent_node[:8]}, expected on {host.node_id[:8]}")
    if host.devices < devices:
        return Loss(Reason.WRONG_DEVICES, f"shows {host.devices} devices, expected {devices}")
    return None


def _working(life: Life) -> Iterator[Step]:
    record, view = life.record, life.view
    attempt = record.attempt
    if attempt is None:
        return
    gone = 0
    for host, seen in zip(record.hosts, view.hosts, strict=True):
        ended = seen.gone == attempt and (attempt, host.rank) in view.outcomes
        gone += ended
        if host.state is HostState.READY and seen.alive == attempt and not ended:
            yield Step(record.id, host.rank, HostTrigger.START, Reason.PROCESS_STARTED, attempt)
        elif host.state is HostState.RUNNING and ended:
            yield Step(record.id, host.rank, HostTrigger.FINISH, Reason.PROCESS_GONE, attempt)
    if record.state is SliceState.RUNNING and life.over == attempt and gone == len(record.hosts):
        yield Step(record.id, None, SliceTrigger.FINISH, Reason.RUN_ENDED, attempt)


def _lost(life: Life, now: float, limits: Limits) -> list[Step]:
    """Return the preemption of this slice and of hosts that are lost or noticed themselves; nothing if it is well."""
    record, view = life.record, life.view
    losses = {rank: host.lost for rank, host in enumerate(view.hosts) if host.lost is not None}
    if not limits.silence_held:
        for rank in silent_ranks(life, now, limits.silence_s):
            detail = f"not heard for {now - min(life.heard[rank], life.raylet_heard[rank]):.1f} s"
            losses.setdefault(rank, Loss(Reason.SILENT, detail))
    notices = {rank: notice for rank, host in enumerate(view.hosts) if (notice := host.notice) is not None}
    if view.lost is not None:
        cause, first = None, view.lost
    elif losses:
        cause, first = next(iter(losses.items()))
    elif notices:
        rank, notice = next(iter(notices.items()))
        cause, first = rank, Loss(Reason.PREEMPTION_NOTICE, _notice_text(notice))
    else:
        return []
    where = "" if cause is None else f"host {cause}"
    detail = ": ".join(part for part in (where, first.detail) if part)
    link = None if cause is None else f"{record.id}/{cause}"
    steps = [Step(record.id, None, SliceTrigger.PREEMPT, first.reason, detail, link)]
    for host in record.hosts:
        own = losses.get(host.rank)
        if own is None and host.rank in notices:
            own = Loss(Reason.PREEMPTION_NOTICE, _notice_text(notices[host.rank]))
        if own is not None:
            steps.append(Step(record.id, host.rank, HostTrigger.PREEMPT, own.reason, own.detail, link))
    return steps


def _notice_text(notice: Notice) -> str:
    if notice.deadline_epoch_s is None:
        return f"notice from {notice.source}, no deadline"
    return f"notice from {notice.source}, deadline at {notice.deadline_epoch_s:.0f}"


def earliest_notice(life: Life) -> Notice | None:
    """Return the notices of all hosts and sources as one, or None when none stands."""
    notices = [notice for host in life.view.hosts if (notice := host.notice) is not None]
    if not notices:
        return None
    known = [notice.deadline_epoch_s for notice in notices if notice.deadline_epoch_s is not None]
    sources = "+".join(sorted({notice.source for notice in notices}))
    return Notice(sources, min(known) if known else None)


def is_lost(life: Life) -> Loss | None:
    """Return the first loss that was observed of this life: of its groups, or of any host."""
    if life.view.lost is not None:
        return life.view.lost
    return next((host.lost for host in life.view.hosts if host.lost is not None), None)


def _preempted(life: Life) -> Iterator[Step]:
    """Note what happens to a slice that is preempted already; its state stays."""
    record = life.record
    loss = is_lost(life)
    if loss is not None and not record.lost and not life.noted_loss:
        yield Step(record.id, None, None, Reason.LOST_AFTER_NOTICE, loss.detail)
    notice = earliest_notice(life)
    if notice == life.noted_notice:
        return
    if notice is None:
        yield Step(record.id, None, None, Reason.NOTICE_WITHDRAWN, "what was decided stands")
    else:
        yield Step(record.id, None, None, Reason.NOTICE_MERGED, _notice_text(notice))


def _work_ended(life: Life) -> Iterator[Step]:
    """Note when the first process of the work ended on a slice that left its attempt while that still ran."""
    record, view = life.record, life.view
    if record.attempt is None or record.lost or life.noted_loss or life.noted_end:
        return
    for host, seen in zip(record.hosts, view.hosts, strict=True):
        if seen.gone == record.attempt or (record.attempt, host.rank) in view.outcomes:
            yield Step(record.id, None, None, Reason.WORK_ENDED, record.attempt, host.id)
            return


def _draining(life: Life, now: float, limits: Limits) -> Iterator[Step]:
    record = life.record
    if life.view.released:
        yield Step(record.id, None, SliceTrigger.RELEASE, Reason.GROUPS_REMOVED)
    elif now - record.since >= limits.stuck_s and not life.noted_stuck:
        detail = f"not released for {now - record.since:.0f} s; its groups are still not seen removed"
        yield Step(record.id, None, None, Reason.STUCK, detail)
