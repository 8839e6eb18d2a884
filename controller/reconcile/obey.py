"""Take an order of the user's: note it, and remember what it asks for; what follows is planned in the same tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from sliceform.controller.model.orders import Allow, Avoid, Cancel, Close, Drain, Order, Scale, Submit
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.conduct import Conductor
from sliceform.controller.reconcile.decide.policy import Pause
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states.reasons import Reason


def obey(ledger: Ledger, conductor: Conductor, order: Order, run_of: Callable[[Submit], RunRecord]) -> None:
    """Take one order; `run_of` gives the record of a run that is submitted."""
    match order:
        case Scale():
            _scale(ledger, order)
        case Drain():
            _drain(ledger, order)
        case Submit():
            conductor.submit(run_of(order), order.told)
        case Cancel():
            _cancel(ledger, conductor, order)
        case Close():
            _close(ledger, conductor, order)
        case Avoid():
            until = None if order.for_s is None else ledger.fleet.now + order.for_s
            ledger.fleet.places.avoid(order.place, until, order.reason)
            ledger.note(Reason.AVOID_ORDERED, order.told)
        case Allow():
            ledger.fleet.places.allow(order.place)
            ledger.note(Reason.ALLOW_ORDERED, order.told)
        case _:
            assert_never(order)


def _scale(ledger: Ledger, order: Scale) -> None:
    fleet = ledger.fleet
    fleet.desired = Desired(order.sizes, order.spares, fleet.desired.generation + 1)
    fleet.pause, fleet.added_at = Pause(), fleet.now
    ledger.note(Reason.SCALE_ORDERED, order.told)


def _drain(ledger: Ledger, order: Drain) -> None:
    fleet, life = ledger.fleet, ledger.fleet.lives.get(order.slice_id)
    if life is None:
        return  # it went before the order came
    life.drain_by = _sooner(life.drain_by, fleet.now + order.grace_s)
    ledger.slices.note(life.record, at=fleet.epoch, tick=ledger.tick, reason=Reason.DRAIN_ORDERED, detail=order.told)


def _cancel(ledger: Ledger, conductor: Conductor, order: Cancel) -> None:
    run = next((run for run in ledger.fleet.runs if run.id == order.run_id), None)
    if run is None:
        return  # it was over before the order came
    ledger.note_run(run, Reason.RUN_CANCELLED, order.told, run.state)
    conductor.cancel(run, order.grace_s)


def _close(ledger: Ledger, conductor: Conductor, order: Close) -> None:
    fleet = ledger.fleet
    fleet.closing_by = _sooner(fleet.closing_by, fleet.now + order.grace_s)
    ledger.note(Reason.CLOSE_ORDERED, order.told)
    for run in list(fleet.runs):
        conductor.cancel(run, order.grace_s)


def _sooner(by: float | None, other: float) -> float:
    return other if by is None else min(by, other)
