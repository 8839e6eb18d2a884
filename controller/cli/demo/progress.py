"""How the training goes, as rank 0 reports it: one JSON object a line, read while it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Report(NamedTuple):
    """One report of rank 0."""

    #: `begin`, `step` or `saved`.
    kind: str
    attempt: int
    #: Epoch seconds.
    at: float
    #: Steps done.
    step: int
    #: Processes in the JAX world; only in a `begin`.
    world: int = 0
    #: Of the last batch, and on the held-out images; only in a `step`.
    loss: float = 0.0
    accuracy: float = 0.0


class ProgressReader:
    """Reads what was added to the file since it last looked."""

    def __init__(self, path: Path) -> None:
        """Take the file, which need not exist yet."""
        self._path = path
        self._offset = 0
        self._rest = b""

    def new(self) -> list[Report]:
        """Return the reports that were added; a line that is not complete waits, one that is broken is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        return [report for line in lines if (report := _parse(line)) is not None]


def _parse(line: bytes) -> Report | None:
    """Return one report; None for what a process wrote that was killed in the middle of it."""
    try:
        return Report(**json.loads(line))
    except (ValueError, TypeError):
        return None
