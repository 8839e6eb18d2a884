"""How explanations speak: how they write times, and of what they look back on in the past tense."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

#: How a time is written for people: seconds since the epoch to text.
When = Callable[[float], str]


def utc(time: float, now: float) -> str:
    """Write a time in UTC, to the millisecond, with its date where that is not the date of `now`."""
    moment = datetime.fromtimestamp(time, tz=UTC)
    today = datetime.fromtimestamp(now, tz=UTC).date()
    return moment.strftime("%H:%M:%S.%f" if moment.date() == today else "%Y-%m-%d %H:%M:%S.%f")[:-3]


def span(seconds: float) -> str:
    """Write how long something took."""
    seconds = max(0.0, seconds)
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


class Look(NamedTuple):
    """The moment at which a history is looked at."""

    #: Epoch seconds; when its driver is gone, the last that is known of it.
    now: float
    #: How times are written; by default in UTC, with the date where it is not that of `now`.
    when: When | None = None
    #: Nobody keeps the fleet any more: what was then is told in the past tense.
    over: bool = False

    def at(self, time: float) -> str:
        """Write a time."""
        return utc(time, self.now) if self.when is None else self.when(time)

    def tense(self, present: str, past: str) -> str:
        """Choose the words for what is or was so at that moment."""
        return past if self.over else present

    def stands(self, state: str, since: float) -> str:
        """Say how long something has been in a state, or had been when its driver ended."""
        if self.over:
            return f"was {state}, for {span(self.now - since)}, when its driver ended at {self.at(self.now)}"
        return f"is {state} since {span(self.now - since)}"
