"""Loop time: the clock that budgets and silence are measured on.

It stands still while the controller could not have noticed anything: while the driver was paused, and while the cluster
could not be observed. A fleet is never destroyed for time in which nobody looked.
"""

from __future__ import annotations


class LoopTime:
    """Counts seconds, but only those in which ticks ran on schedule with complete observations."""

    def __init__(self, monotonic: float, *, max_gap_s: float) -> None:
        """Start at zero; of a longer gap between two ticks only `max_gap_s` seconds count."""
        self._max_gap_s = max_gap_s
        self._last = monotonic
        self.now = 0.0

    def tick(self, monotonic: float, *, blind: bool) -> float:
        """Count the time since the last tick, unless that was spent blind; return loop time."""
        gap = monotonic - self._last
        self._last = monotonic
        if not blind:
            self.now += min(gap, self._max_gap_s)
        return self.now
