"""Take an order of the user's: note it, and remember what it asks for; what follows is planned in the same tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from sliceform.controller.model.orders import Allow, Avoid, Cancel, Close, Drain, Order, Scale, Submit
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.decide.policy import Pause
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.run_books import cancel, submit
from sliceform.states.reasons import Reason


def obey(ledger: Ledger, order: Order, run_of: Callable[[Submit], RunRecord]) -> None:
    """Take one order; `run_of` gives the record of a run that is submitted."""
    match order:
        case Scale():
            _scale(ledger, order)
        case Drain():
            _drain(ledger, order)
        case Submit():
            submit(ledger, run_of(order), order.told)
        case Cancel():
            _cancel(ledger, order)
        case Close():
            _close(ledger, order)
        case Avoid():
            until = None if order.for_s is None else ledger.fleet.now + order.for_s
            ledger.fleet.places.avoid(order.place, until, order.reason)
            ledger.note_fleet(Reason.AVOID_ORDERED, order.told)
        case Allow():
            ledger.fleet.places.allow(order.place)
            ledger.note_fleet(Reason.ALLOW_ORDERED, order.told)
        case _:
            assert_never(order)


def _scale(ledger: Ledger, order: Scale) -> None:
    fleet = ledger.fleet
    fleet.desired = Desired(order.sizes, order.spares, fleet.desired.generation + 1)
    fleet.pause, fleet.added_at = Pause(), fleet.now
    ledger.note_fleet(Reason.SCALE_ORDERED, order.told)


def _drain(ledger: Ledger, order: Drain) -> None:
    fleet, life = ledger.fleet, ledger.fleet.lives.get(order.slice_id)
    if life is None:
        return  # it went before the order came
    life.drain_by = _sooner(life.drain_by, fleet.now + order.grace_s)
    ledger.note(life.record, Reason.DRAIN_ORDERED, order.told)


def _cancel(ledger: Ledger, order: Cancel) -> None:
    run = next((run for run in ledger.fleet.runs if run.id == order.run_id), None)
    if run is None:
        return  # it was over before the order came
    ledger.note(run, Reason.RUN_CANCELLED, order.told)
    cancel(ledger, run, order.grace_s)


def _close(ledger: Ledger, order: Close) -> None:
    fleet = ledger.fleet
    fleet.closing_by = _sooner(fleet.closing_by, fleet.now + order.grace_s)
    ledger.note_fleet(Reason.CLOSE_ORDERED, order.told)
    for run in fleet.runs:
        cancel(ledger, run, order.grace_s)


def _sooner(by: float | None, other: float) -> float:
    return other if by is None else min(by, other)
