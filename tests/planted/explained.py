"""Changes that nothing can tell from the original, each with the reason why."""

from __future__ import annotations

from typing import NamedTuple


class Explained(NamedTuple):
    """A change by its code, and why it is none."""

    path: str
    inside: str
    before: str
    after: str
    why: str


_NOTIFY = "return Notify(record.id, record.attempt, record.deadline)"
_TOLD_ANYHOW = (
    "A preempted slice leaves its attempt, which in the same tick, before anything is sent, puts its own `Notify` for"
    " each of its slices under the same key. What the slice itself asked for never leaves the outbox."
)

_OF_REQUESTS = tuple(
    Explained("controller/reconcile/requests.py", "_of_slice", _NOTIFY, after, _TOLD_ANYHOW)
    for after in (
        "return None",
        "return Notify(record.id, None, record.deadline)",
        "return Notify(record.id, record.deadline, record.deadline)",
        "return Notify(record.id, record.attempt, None)",
        "return Notify(record.id, record.attempt, record.id)",
    )
)
#: Numbers of which any other would serve as well.
_NUMBERS = (
    Explained(
        "controller/reconcile/decide/places.py",
        "_units",
        "return int(found) if found >= 1 and found == int(found) else 1",
        "return int(found) if found > 1 and found == int(found) else 1",
        "One is 1 either way.",
    ),
    Explained(
        "controller/reconcile/loop.py",
        "_TICKS_KEPT",
        "_TICKS_KEPT = 4_096",
        "_TICKS_KEPT = 4097",
        "So many tick times are kept between two looks of the metrics, which come every second.",
    ),
    Explained(
        "controller/reconcile/decide/life.py",
        "Life.asked_at",
        "asked_at: float = 0.0",
        "asked_at: float = 1.0",
        "It is set when its reservation is asked for, in the tick in which the slice comes, before anybody reads it.",
    ),
    Explained(
        "controller/reconcile/rows.py",
        "RunRows.__init__",
        "self._seq = -1",
        "self._seq = -2",
        "The number of no change: they count from 1, and before the first there is 0.",
    ),
)

#: Whatever else is among several, the least of them is what is told.
_LEAST = (
    Explained(
        "controller/reconcile/decide/stopping.py",
        "_deadline",
        "if end < min(deadlines, default=FOREVER) - _SAME_S:",
        "if end < max(deadlines, default=FOREVER) - _SAME_S:",
        "One that is not the earliest is added to those of which the earliest is returned.",
    ),
)

EXPLAINED: tuple[Explained, ...] = (*_OF_REQUESTS, *_NUMBERS, *_LEAST)
