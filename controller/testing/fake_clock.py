"""A clock that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A `Clock` for tests: both times move together, and only by `advance`."""

    __slots__ = ("_epoch", "_now", "_start")

    def __init__(self, start: float = 0.0, epoch: float = 1_700_000_000.0) -> None:
        """Take both times at the start, in seconds."""
        self._start = start
        self._now = start
        self._epoch = epoch

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:g}>"

    def monotonic(self) -> float:
        """Return the time now, in seconds since an arbitrary start."""
        return self._now

    def epoch(self) -> float:
        """Return the time now, in seconds since 1970-01-01 UTC."""
        return self._epoch + (self._now - self._start)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: `seconds` is negative.

        """
        if seconds < 0:
            raise ValueError(f"time does not go back: advance by 0 or more seconds, not {seconds}")
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Let the time pass without waiting for it."""
        self.advance(seconds)
