"""The fleet as decisions see it: what is desired, what there is, and what is remembered.

Pure values; the loop's thread owns and updates them, `plan` only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sliceform.controller.model.events import Node
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.policy import Backoff, Pause, Places, Vacancy
from sliceform.controller.reconcile.decide.run import RunRecord


@dataclass(slots=True)
class Fleet:
    """All that a decision is made from; the loop's thread owns and updates it."""

    settings: Settings
    desired: Desired
    #: By slice id, oldest first.
    lives: dict[str, Life]
    #: In the order of the queue: higher priority first, then as they were submitted.
    runs: list[RunRecord]
    places: Places
    backoff: Backoff
    #: Hosts of every slice.
    hosts: int
    #: Slices that were lost, expired or taken and have no replacement yet, oldest first.
    vacancies: list[Vacancy] = field(default_factory=list)
    #: Whether trying for the largest size pauses.
    pause: Pause = field(default_factory=Pause)
    #: When a slice became ready, or what is wanted changed, last.
    added_at: float = 0.0
    #: When one was preempted last.
    lost_at: float = 0.0
    #: Number of the next slice.
    next_number: int = 1
    #: Loop time, seconds, and the epoch time that goes with it.
    now: float = 0.0
    epoch: float = 0.0
    #: Why the cluster cannot be observed: nothing may be destroyed because of what is not seen; empty if it can.
    blind: str = ""
    #: The node table as it was last read, by node id.
    nodes: Mapping[str, Node] = field(default_factory=dict)
    #: The node table has been read once: it is known which places are whole.
    surveyed: bool = False
    #: Set when the fleet closes: loop time by which all work is to be gone.
    closing_by: float | None = None

    def work_until(self, life: Life) -> float:
        """Return the loop time by which the work on a slice is to be gone; infinite if nobody has asked for its end."""
        asked = (life.drain_by, life.stop_by, self.closing_by)
        return min((time for time in asked if time is not None), default=float("inf"))
