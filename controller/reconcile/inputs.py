"""All that one tick goes by, as a value: the same inputs lead the same fleet to the same decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sliceform.controller.model.events import Event
from sliceform.controller.model.orders import Order


class Beat(NamedTuple):
    """A host's agent was heard since the last tick."""

    slice_id: str
    rank: int
    #: The agent says that its node's own daemon is well.
    raylet_ok: bool


class Inputs(NamedTuple):
    """What came in since the last tick, and when it is; nothing else moves a fleet."""

    #: Both clocks, seconds; read once a tick.
    monotonic: float
    epoch: float
    #: Without a record none: they are taken when they come, for there are many, and it makes no difference to anybody.
    beats: Sequence[Beat]
    events: Sequence[Event]
    #: Taken one by one: those that a tick does not come to, because it raised, are left for the next.
    orders: Iterable[Order]
