"""What is remembered of one life of a slice and of its hosts.

Records are changed by one thread only, and their ``state`` only by the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sliceform.states.slices import LIVE

if TYPE_CHECKING:
    from sliceform.states.hosts import HostState
    from sliceform.states.reasons import Reason
    from sliceform.states.slices import SliceState


@dataclass(slots=True, eq=False)
class HostRecord:
    """One life of one host. Two records are equal only if they are the same object."""

    #: ``<slice id>/<rank>``.
    id: str
    #: The slice that it belongs to.
    slice_id: str
    #: Its place in the slice: host rank, bundle index and TPU worker id are the same number.
    rank: int
    #: Where it is in its life; None before entry and after exit.
    state: HostState | None = None
    #: When it came into this state, on the monotonic clock, and in seconds since the epoch.
    since: float = 0.0
    at: float = 0.0
    #: The Ray node that its bundle was placed on; fixed for the rest of its life.
    node_id: str | None = None
    #: Why it is in this state.
    reason: Reason | None = None
    #: The same in free text.
    detail: str = ""


@dataclass(slots=True, eq=False)
class SliceRecord:
    """One life of one slice. Two records are equal only if they are the same object."""

    #: Its name in the fleet, never used again after its exit.
    id: str
    #: Its hosts, by rank.
    hosts: tuple[HostRecord, ...]
    #: Where it is in its life; None before entry and after exit.
    state: SliceState | None = None
    #: When it came into this state, on the monotonic clock, and in seconds since the epoch.
    since: float = 0.0
    at: float = 0.0
    #: The number of the desired spec that it was made for.
    generation: int = 0
    #: The lost slice that it stands in for.
    replaces: str | None = None
    #: What it was reserved on: the TPU slice's name; None until placed, or if there is none.
    place: str | None = None
    #: Key of the attempt that it works for.
    attempt: str | None = None
    #: By when its work must have stopped, once it is preempted or draining; epoch seconds.
    deadline: float | None = None
    #: Whether it was lost outright, so that no grace is given.
    lost: bool = False
    #: Why it is in this state.
    reason: Reason | None = None
    #: The same in free text.
    detail: str = ""
    #: How many transitions it has made; tells readers whether it has changed.
    version: int = 0

    @property
    def live(self) -> bool:
        """Whether it counts as capacity, present or coming."""
        return self.state in LIVE
