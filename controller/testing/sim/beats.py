"""When the agents of a simulated cluster are heard."""

from __future__ import annotations

import heapq
import random
from itertools import count

from sliceform.controller.model.backend import Sink
from sliceform.controller.testing.sim.lives import SimLife


class SimBeats:
    """All agents of one life beat together.

    Lives are spread over the interval, so that no tick has to carry them all.
    """

    def __init__(self, interval_s: float, seed: int) -> None:
        """Start with no life."""
        self._interval_s = interval_s
        self._rng = random.Random(seed)
        self._heap: list[tuple[float, int, SimLife]] = []
        self._count = count()

    def begin(self, life: SimLife, now: float) -> None:
        """Let the agents of a life beat from now on."""
        due = now + self._interval_s * self._rng.random()
        heapq.heappush(self._heap, (due, next(self._count), life))

    def deliver(self, now: float, sink: Sink) -> None:
        """Report every agent that is due; one that is long overdue is still heard only once."""
        heap, beat = self._heap, sink.beat
        while heap and heap[0][0] <= now:
            due, number, life = heap[0]
            if life.ending:
                heapq.heappop(heap)
                continue
            missed = (now - due) // self._interval_s
            heapq.heapreplace(heap, (due + (missed + 1) * self._interval_s, number, life))
            name, (well, unwell) = life.id, life.heard_now()
            for rank in well:
                beat(name, rank)
            for rank in unwell:
                beat(name, rank, raylet_ok=False)
