"""The real core as the search sees it: how it is made, ordered about, and looked into. All else is in its records."""

from __future__ import annotations

import dataclasses
import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sliceform.controller.model.orders import Cancel, Close, Drain, Order, Scale, Submit
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile import act
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.run import RunOptions, RunRecord
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.loop import Reconciler
from sliceform.states import History

from .cluster import World

#: All spans are a few seconds, so that a few steps of time reach the end of each.
SETTINGS: dict[str, float] = {
    "resync_s": 1.0,
    "nodes_every_s": 1.0,
    "beat_s": 0.25,
    "silence_s": 2.0,
    "pending_s": 2.0,
    "placed_s": 2.0,
    "drain_grace_s": 1.0,
    "settle_s": 1.0,
    "scale_up_after_s": 1.0,
    "surplus_s": 2.0,
    "overtake_s": 2.0,
    "avoid_lost_s": 2.0,
    "quarantine_after": 2,
    "quarantine_s": 2.0,
    "backoff_initial_s": 1.0,
    "backoff_max_s": 1.0,
    "fence_s": 4.0,
    "verdict_s": 1.0,
    "release_stuck_s": 2.0,
    "history_limit": 10_000,
}
#: What is longer ago than all of these is as good as for ever; `fields` says where a shorter one will do.
LONG_AGO_S = 4.0
EPOCH_S = 1_000_000.0


class Clock:
    """The time of one state."""

    def __init__(self) -> None:
        self.s = 0.0

    def monotonic(self) -> float:
        return self.s

    def epoch(self) -> float:
        return EPOCH_S + self.s

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a tick never waits")


class Steady(random.Random):
    """No jitter: every delay is as long as it is meant to be."""

    def uniform(self, a: float, b: float) -> float:
        return min(b, max(a, 1.0))


class Silent:
    """Shows nothing to nobody."""

    def publish(self) -> None: ...


@contextmanager
def steady() -> Iterator[None]:
    """Ask again for what was not answered in the next second, as long as this goes on; and leave the garbage be.

    What a search drops is in no cycle, and there is much that it keeps.
    """
    with patch.multiple(act, RESUBMIT_S=1.0, RESUBMIT_MAX_S=1.0):
        gc.disable()
        try:
            yield
        finally:
            gc.enable()


def make(shape: TpuSlice, sizes: tuple[int, ...], spares: int, world: World, clock: Clock) -> Reconciler:
    """Return a core that has done nothing yet."""
    settings = Settings(**SETTINGS)
    history = History(settings.history_limit)
    ledger = Ledger.begin(shape, Desired(sizes, spares), settings, history, 0)
    reconciler = Reconciler(ledger, world, clock, label="explored", run_of=_run_of)
    reconciler.board = Silent()  # type: ignore[assignment]
    ledger.outbox._rng = Steady()
    ledger.fleet.backoff = dataclasses.replace(ledger.fleet.backoff, rng=Steady())
    return reconciler


def _run_of(given: Submit) -> RunRecord:
    return RunRecord.of(given)


def order(core: Reconciler, what: str, runs: list[RunRecord], budget: tuple[int, int]) -> None:
    """Ask for something as a user would; done in the next tick."""
    name, _, detail = what.partition(" ")
    given: Order
    if name == "submit":
        sizes = tuple(map(int, detail.split(","))) if detail else None
        given = Submit(f"run-{len(runs) + 1}", "work", "", None, RunOptions(sizes, *budget), core.ledger.fleet.epoch)
    elif name == "cancel":
        given = Cancel(runs[-1].id, float(detail))
    elif name == "drain":
        given = Drain(next(name for name, life in lives(core).items() if life.record.live), float(detail))
    elif name == "scale":
        given = Scale(tuple(map(int, detail.split(","))), core.ledger.fleet.desired.spares)
    elif name == "close":
        given = Close(float(detail))
    else:
        raise ValueError(what)
    core.inbox.order(given)


def takes(core: Reconciler, what: str, runs: list[RunRecord]) -> bool:
    """Whether a user could ask for this now."""
    name = what.partition(" ")[0]
    if name == "cancel":
        return bool(runs)
    if name == "drain":
        return any(life.record.live for life in lives(core).values())
    return name == "close" or not closing(core)


def lives(core: Reconciler) -> dict[str, Life]:
    return core.ledger.fleet.lives


def closing(core: Reconciler) -> bool:
    return core.ledger.fleet.closing_by is not None


def blind(core: Reconciler) -> bool:
    return bool(core.ledger.fleet.blind)


def in_flight(core: Reconciler) -> list[Any]:
    """Return the requests whose result has not been seen."""
    return [item.request for item in core.ledger.outbox._items.values()]
