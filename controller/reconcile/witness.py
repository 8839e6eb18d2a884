"""See what one tick goes by and what it does, so that it can be written down and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sliceform.controller.model.effects import EffectRequest
from sliceform.controller.model.orders import Order
from sliceform.controller.reconcile.inputs import Inputs
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.states import Change


class Ticked(NamedTuple):
    """One tick as it went."""

    tick: int
    #: What it took: of orders those that it came to.
    inputs: Inputs
    #: What it committed, and what it submitted, in order.
    changes: tuple[Change, ...]
    effects: tuple[EffectRequest, ...]
    #: The class of what it raised; empty if it went through.
    error: str


class Witness:
    """Stands beside one tick."""

    def __init__(self, ledger: Ledger, inputs: Inputs, submit: Callable[[EffectRequest], None]) -> None:
        """Take the inputs of the tick, and where its effects go."""
        self._ledger = ledger
        self._given = inputs
        self._submit = submit
        self._seq = ledger.history.last_seq
        self._orders: list[Order] = []
        self._effects: list[EffectRequest] = []
        self.error = ""

    @property
    def inputs(self) -> Inputs:
        """The inputs, each order of which is seen when it is taken."""
        return self._given._replace(orders=self._see(self._given.orders))

    def submit(self, effect: EffectRequest) -> None:
        """See an effect, and submit it."""
        self._effects.append(effect)
        self._submit(effect)

    def told(self) -> Ticked:
        """Tell what was seen."""
        changes = tuple(self._ledger.history.since(self._seq))
        inputs = self._given._replace(orders=tuple(self._orders))
        return Ticked(self._ledger.tick, inputs, changes, tuple(self._effects), self.error)

    def _see(self, orders: Iterable[Order]) -> Iterator[Order]:
        for order in orders:
            self._orders.append(order)
            yield order
