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


EXPLAINED: tuple[Explained, ...] = ()
