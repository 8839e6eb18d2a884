"""Time as the controller sees it: injected, so that tests own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The two times in use: durations are monotonic, deadlines from outside are epoch time."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never goes back."""
        ...

    def epoch(self) -> float:
        """Return seconds since 1970-01-01 UTC; may jump when the machine's clock is set."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass; used only where the user drives the loop, on the user's thread."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def epoch(self) -> float:
        """Return `time.time()`."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)
