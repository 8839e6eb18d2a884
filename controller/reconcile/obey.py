"""Take an order of the user's: note it, and remember what it asks for; what follows is planned in the same tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from sliceform.controller.model.orders import Allow, Avoid, Cancel, Close, Drain, Order, Scale, Submit
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.conduct import Conductor
from sliceform.controller.reconcile.decide.policy import Pause
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.ledger import Fleet
from sliceform.states.reasons import Reason


def obey(fleet: Fleet, conductor: Conductor, order: Order, run_of: Callable[[Submit], RunRecord]) -> None:
    """Take one order; `run_of` gives the record of a run that is submitted."""
    match order:
        case Scale():
            _scale(fleet, order)
        case Drain():
            _drain(fleet, order)
        case Submit():
            conductor.submit(run_of(order), order.told)
        case Cancel():
            _cancel(fleet, conductor, order)
        case Close():
            _close(fleet, conductor, order)
        case Avoid():
            until = None if order.for_s is None else fleet.picture.now + order.for_s
            fleet.picture.places.avoid(order.place, until, order.reason)
            fleet.note(Reason.AVOID_ORDERED, order.told)
        case Allow():
            fleet.picture.places.allow(order.place)
            fleet.note(Reason.ALLOW_ORDERED, order.told)
        case _:
            assert_never(order)


def _scale(fleet: Fleet, order: Scale) -> None:
    picture = fleet.picture
    picture.desired = Desired(order.sizes, order.spares, picture.desired.generation + 1)
    picture.pause, picture.added_at = Pause(), picture.now
    fleet.note(Reason.SCALE_ORDERED, order.told)


def _drain(fleet: Fleet, order: Drain) -> None:
    picture, life = fleet.picture, fleet.picture.lives.get(order.slice_id)
    if life is None:
        return  # it went before the order came
    life.drain_by = _sooner(life.drain_by, picture.now + order.grace_s)
    fleet.slices.note(life.record, at=picture.epoch, tick=fleet.tick, reason=Reason.DRAIN_ORDERED, detail=order.told)


def _cancel(fleet: Fleet, conductor: Conductor, order: Cancel) -> None:
    run = next((run for run in fleet.picture.runs if run.id == order.run_id), None)
    if run is None:
        return  # it was over before the order came
    fleet.note_run(run, Reason.RUN_CANCELLED, order.told, run.state)
    conductor.cancel(run, order.grace_s)


def _close(fleet: Fleet, conductor: Conductor, order: Close) -> None:
    picture = fleet.picture
    picture.closing_by = _sooner(picture.closing_by, picture.now + order.grace_s)
    fleet.note(Reason.CLOSE_ORDERED, order.told)
    for run in list(picture.runs):
        conductor.cancel(run, order.grace_s)


def _sooner(by: float | None, other: float) -> float:
    return other if by is None else min(by, other)
