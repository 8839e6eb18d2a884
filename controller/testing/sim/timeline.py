"""What is going to happen in a simulated world, in order of time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from itertools import count
from typing import TypeVar

from sliceform.controller.testing.sim.timings import SimTimings

Action = Callable[[], None]
T = TypeVar("T")


class Timeline:
    """Actions by due time; at equal times in the order in which they were scheduled.

    The world goes on by itself between two looks at it: an action sees as `now` the time at which it was due, so that
    what follows from it is not late because nobody looked.
    """

    __slots__ = ("_count", "_heap", "_rng", "_running", "now", "timings")

    def __init__(self, now: float, timings: SimTimings, seed: int) -> None:
        """Take the time at the start, and the delays of this world."""
        self.now = now
        self.timings = timings
        self._rng = random.Random(seed)
        self._heap: list[tuple[float, int, Action]] = []
        self._count = count()
        self._running = False

    def after(self, delay_s: float, action: Action) -> None:
        """Let something happen once `delay_s` seconds, more or less by the world's jitter, have passed."""
        if delay_s and self.timings.jitter:
            delay_s *= 1.0 + self.timings.jitter * self._rng.uniform(-1.0, 1.0)
        heapq.heappush(self._heap, (self.now + delay_s, next(self._count), action))

    def by_whim(self, things: Iterable[T]) -> Iterable[T]:
        """Return things in their order or, as often as the world's whim has it, in any order."""
        if not self.timings.whim or self._rng.random() >= self.timings.whim:
            return things
        shuffled = list(things)
        self._rng.shuffle(shuffled)
        return shuffled

    def run_until(self, now: float) -> None:
        """Let all happen that is due; does nothing when called by something that is just happening."""
        if self._running:
            return
        self._running = True
        heap = self._heap
        try:
            while heap and heap[0][0] <= now:
                self.now, _, action = heapq.heappop(heap)
                action()
        finally:
            self._running = False
        self.now = max(self.now, now)
