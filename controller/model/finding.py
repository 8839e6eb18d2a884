"""One thing found that explains why something is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: So many findings stand in a note, each cut at so many characters.
_NOTED = 3
_LENGTH = 200
_BETWEEN = " | "


class Finding(NamedTuple):
    """One thing found, in the cluster or in the history, that explains why a slice or a run is as it is."""

    #: Closed code: `no_such_pod_type`, `chips_held`, `host_missing`, `avoided`, `waiting`, ...
    code: str
    #: A sentence for people.
    text: str
    #: What it is about: a group's name, a worker id, a place.
    subject: str = ""


def same(one: Sequence[Finding] | None, other: Sequence[Finding] | None) -> bool:
    """Whether a note on the one says what a note on the other does: numbers in the sentences may differ."""
    return _key(one) == _key(other)


def write(findings: Sequence[Finding]) -> str:
    """Write findings into the detail of a note, the most telling ones in full."""
    parts = [f"{finding.code}: {finding.text[:_LENGTH]}" for finding in findings[:_NOTED]]
    more = len(findings) - len(parts)
    return _BETWEEN.join(parts) + (f"{_BETWEEN}and {more} more" if more else "")


def read(detail: str) -> list[Finding]:
    """Read them back; what was left out is told with the last."""
    found: list[Finding] = []
    for part in detail.split(_BETWEEN):
        code, colon, text = part.partition(": ")
        if colon:
            found.append(Finding(code, text))
        elif found:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}; {part}")
    return found


def _key(findings: Sequence[Finding] | None) -> object:
    return None if findings is None else ([finding[::2] for finding in findings[:_NOTED]], len(findings) > _NOTED)
