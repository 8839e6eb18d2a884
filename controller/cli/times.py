"""Times as people write and read them: local, with the date where it is not today's."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import click

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)(?:\s+ago)?", re.IGNORECASE)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.2
    """A time: ISO, seconds since the epoch, a time of today, or so long ago; becomes seconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it.

        Raises:
            click.BadParameter: it is none of these, or no calendar has it.

        """
        text = str(value).strip()
        moment = self._read(text, param, ctx)
        try:
            when(moment)
        except (OSError, OverflowError, ValueError):  # which of them depends on how far away it is
            self.fail(f"{text!r} is no time: it is not within the years 1 to 9999", param, ctx)
        return moment

    def _read(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        ago = _AGO.fullmatch(text)
        if ago:
            return time.time() - float(ago[1]) * _UNITS[ago[2].lower()]
        try:
            return float(text)
        except ValueError:
            pass  # not a number; perhaps a date
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            pass  # not a whole date; perhaps a time of today
        try:
            return datetime.fromisoformat(f"{datetime.now().astimezone():%Y-%m-%d} {text}").timestamp()
        except ValueError:
            self.fail(
                f"{text!r} is no time; write 2026-05-04T10:30:00, 10:30:00 (today), 10m (ago; s, m, h, d),"
                " or seconds since the epoch",
                param,
                ctx,
            )


def when(moment: float, *, dated: bool = False) -> str:
    """Write a time in this machine's zone, to the millisecond, with its date if that is not today's or with `dated`."""
    local = datetime.fromtimestamp(moment).astimezone()
    text = f"{local:%H:%M:%S}.{local.microsecond // 1000:03}"
    return f"{local:%Y-%m-%d} {text}" if dated or not is_today(moment) else text


def is_today(moment: float) -> bool:
    """Whether a time is of the present day in this machine's zone."""
    return datetime.fromtimestamp(moment).astimezone().date() == datetime.now().astimezone().date()


def span(seconds: float | None) -> str:
    """Write how long something took, in seconds; nothing if that is not known."""
    return "" if seconds is None else f"{seconds:.1f} s"
