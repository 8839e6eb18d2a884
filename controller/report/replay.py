"""Replay a record: run the real core over what its loop took, without a cluster, and compare what it decides."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.follow.record.form import FORMAT, decisions, inputs_of
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import CpuSlice, GpuSlice, SliceShape, TpuSlice
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.loop import Reconciler
from sliceform.controller.reconcile.witness import Ticked
from sliceform.states import History

_SHAPES: Mapping[str, type[SliceShape]] = {kind.__name__: kind for kind in (TpuSlice, GpuSlice, CpuSlice)}


class Difference(NamedTuple):
    """The first tick that decides otherwise than it did; what follows it cannot be compared."""

    tick: int
    #: When it was, seconds since the epoch.
    epoch: float
    recorded: tuple[str, ...]
    decided: tuple[str, ...]

    def __str__(self) -> str:
        """Show what is missing and what is new, line by line."""
        gone = [f"  - {line}" for line in self.recorded if line not in self.decided]
        new = [f"  + {line}" for line in self.decided if line not in self.recorded]
        return "\n".join(gone + new or ["  the same, in another order"])


class Replayed(NamedTuple):
    """What came of the replay of one driver's record."""

    #: What it was made with, by name.
    versions: Mapping[str, str | None]
    #: How many ticks agree.
    ticks: int
    difference: Difference | None


def replay_record(path: str | os.PathLike[str]) -> tuple[Replayed, ...]:
    """Replay what every driver that wrote this file recorded, oldest first.

    Raises:
        ConfigurationError: it is no record, or one of another version that this one cannot read.
        OSError: it cannot be read.

    """
    found: list[Replayed] = []
    replay: _Replay | None = None
    for row in _rows(Path(path)):
        if "format" in row:
            if replay is not None:
                found.append(replay.told())
            replay = _Replay(row)
        elif replay is None:
            raise ConfigurationError(f"{path} is no record: it does not begin with a header")
        else:
            replay.take(row)
    if replay is None:
        raise ConfigurationError(f"{path} is no record: it is empty")
    return (*found, replay.told())


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                if not line.endswith("\n") or _is_cut(line):
                    continue
                raise ConfigurationError(f"{path} is no record: line {number} is not JSON") from error
            if not isinstance(row, dict):
                raise ConfigurationError(f"{path} is no record: line {number} is not an object")
            yield row


def _is_cut(line: str) -> bool:
    """Whether a driver was killed in the midst of this line."""
    return line.startswith('{"tick":') and not line.rstrip().endswith("}")


class _Replay:
    """One driver's fleet, again."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self._versions = header.get("versions", {})
        self._ledger = _ledger_of(header)
        backend: Any = _Nowhere()
        clock: Any = _Then(header["monotonic"])
        self._loop = Reconciler(self._ledger, backend, clock, label="replay")
        self._ticks = 0
        self._difference: Difference | None = None

    def take(self, row: Mapping[str, Any]) -> None:
        if self._difference is not None:
            return
        inputs = inputs_of(row, self._ledger.fleet.nodes)
        seen: list[Ticked] = []
        with suppress(Exception):  # it is one of the decisions that are compared
            self._loop.witness(inputs, seen.append)
        recorded, decided = tuple(row.get("decided", ())), tuple(decisions(seen[0]))
        if recorded == decided:
            self._ticks += 1
        else:
            self._difference = Difference(row["tick"], row["epoch"], recorded, decided)

    def told(self) -> Replayed:
        return Replayed(self._versions, self._ticks, self._difference)


def _ledger_of(header: Mapping[str, Any]) -> Ledger:
    if header["format"] != FORMAT:
        raise ConfigurationError(
            f"the record has form {header['format']}, this sliceform reads {FORMAT}: use its version"
        )
    try:
        ((kind, shape),) = header["shape"].items()
        settings = Settings(**header["settings"])
        desired = Desired(tuple(header["sizes"]), header["spares"])
        ledger = Ledger.begin(_SHAPES[kind].model_validate(shape), desired, settings, History(), header["seed"])
    except (KeyError, ValidationError) as error:
        raise ConfigurationError(f"the header is not one that this sliceform knows: {error!r}") from error
    ledger.fleet.next_number = header["next_slice"]
    return ledger


class _Then:
    """The clock when it began; every tick brings its own times."""

    def __init__(self, monotonic: float) -> None:
        self._monotonic = monotonic

    def monotonic(self) -> float:
        return self._monotonic


class _Nowhere:
    """The port to no cluster: all that it would answer is in the record."""

    def submit(self, _: Any) -> None:
        pass

    def forget(self, _: str) -> None:
        pass

    def inquire(self, *_: Any) -> None:
        pass
