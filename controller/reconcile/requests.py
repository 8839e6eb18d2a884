"""Say in full what the effect of a transition asks for, and put it into the outbox.

Nothing here acts on the world: effects are submitted after the tick's commits.
"""

from __future__ import annotations

from typing import assert_never

from sliceform.controller.model.effects import Assemble, EffectRequest, Launch, Notify, Release, Reserve, Stop
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import Attempt
from sliceform.controller.reconcile.decide.sync_attempt import is_clear
from sliceform.controller.reconcile.kinds import choose_kind
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState

#: States of a slice in which work on it can be told and stopped.
_AT_WORK = frozenset({SliceState.RUNNING, SliceState.PREEMPTED})


def request(ledger: Ledger, life: Life, effect: Effect) -> None:
    """Ask for an effect of a slice's transition."""
    found = _of_slice(ledger, life, effect)
    if found is not None:
        ledger.outbox.put(found, ledger.fleet.now)


def tell(ledger: Ledger, attempt: Attempt) -> None:
    """Tell the work of an attempt on all of its slices to checkpoint and stop, with the earliest deadline."""
    for member in attempt.spec.members:
        life = ledger.fleet.lives.get(member)
        if life is None or life.record.attempt != attempt.spec.key or life.record.lost:
            continue
        if life.record.state in _AT_WORK:
            ledger.outbox.put(Notify(member, attempt.spec.key, attempt.deadline), ledger.fleet.now)


def stop(ledger: Ledger, attempt: Attempt, until: float) -> None:
    """End what is left of an attempt on its slices by a loop time, by force; what drains is hurried by `plan`."""
    now = ledger.fleet.now
    for member in attempt.spec.members:
        life = ledger.fleet.lives.get(member)
        if life is None or life.record.attempt != attempt.spec.key or is_clear(attempt, member):
            continue
        life.stop_by = until
        if life.record.state in _AT_WORK:
            ledger.outbox.put(Stop(member, attempt.spec.key, until - now), now)


def hurry(ledger: Ledger, life: Life) -> None:
    """Give the work on a slice that drains already less time."""
    ledger.outbox.put(_release(ledger, life, ledger.fleet.work_until(life)), ledger.fleet.now)


def renew(ledger: Ledger) -> None:
    """Ask anew for reservations that wait where other places are to be kept away from now.

    Of those that keep away from TPU slices which have come free, no more than there are such slices.
    """
    fleet, outlook = ledger.fleet, ledger.outlook
    waiting = [life for life in fleet.lives.values() if life.waits_for_reservation]
    missed = [life for life in waiting if life.asked is not None and outlook.is_missed_by(life.asked)]
    if isinstance(ledger.shape, TpuSlice):
        # All others that wait can take them as well.
        others = len(waiting) - len(missed)
        missed = missed[: max(1, len(outlook.free) - others)]
    trapped = [life for life in waiting if life.asked is not None and outlook.traps_it(life.asked)]
    for life in dict.fromkeys([*trapped, *missed]):
        ask_anew(ledger, life)


def ask_anew(ledger: Ledger, life: Life) -> None:
    """Ask for a reservation that waits as it would be asked for now."""
    ledger.outbox.put(_reserve(ledger, life), ledger.fleet.now)


def _of_slice(ledger: Ledger, life: Life, effect: Effect) -> EffectRequest | None:
    """Say in full what an effect of this life asks for; None if there is nothing to ask."""
    record, shape = life.record, ledger.shape
    match effect:
        case Effect.RESERVE:
            return _reserve(ledger, life)
        case Effect.ASSEMBLE:
            return Assemble(record.id, shape, record.place, ledger.place_map.units(record.place))
        case Effect.LAUNCH:
            spec = ledger.attempts[record.attempt or ""].spec
            return Launch(record.id, shape, spec, spec.members.index(record.id))
        case Effect.NOTIFY:
            if record.attempt is None or record.lost:
                return None
            return Notify(record.id, record.attempt, record.deadline)
        case Effect.RELEASE:
            return _release(ledger, life, _work_until(ledger, life))
        case Effect.STOP:
            raise AssertionError("no row of a slice asks for it")
        case _:
            assert_never(effect)


def _work_until(ledger: Ledger, life: Life) -> float:
    """Return by when work on a slice that is let go of has to be gone, loop time: now, unless a person asked."""
    fleet, record = ledger.fleet, life.record
    if record.attempt is None or record.reason not in {Reason.CLOSED, Reason.OPERATOR}:
        return fleet.now
    return fleet.work_until(life)


def _release(ledger: Ledger, life: Life, until: float) -> Release:
    life.release_by = until
    grace_s = max(0.0, until - ledger.fleet.now)
    lost = life.record.lost or life.noted_loss
    return Release(life.record.id, grace_s, lost, life.record.attempt)


def _reserve(ledger: Ledger, life: Life) -> Reserve:
    """Ask for a reservation wherever one may go now."""
    outlook = ledger.outlook
    kind = choose_kind(ledger, life)
    life.asked = Reserve(life.record.id, ledger.shape, outlook.avoid, outlook.avoid_nodes, kind)
    life.asked_at = ledger.fleet.now
    return life.asked
