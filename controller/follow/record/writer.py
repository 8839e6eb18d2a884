"""Write a record: the loop only hands over what a tick was, a thread of its own writes it down."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections import deque
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.record.form import FORMAT, tick_row
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.witness import Ticked

log = structlog.get_logger(__name__)

#: How often what has come is written, seconds.
EVERY_S = 0.2
#: A record ends when its file is so large, bytes: weeks of a fleet that is seldom disturbed.
_LIMIT_BYTES = 512 * 2**20
#: Ticks that may wait to be written; with more, the disk does not keep up, and the record ends.
_WAITING = 20_000


class Recorder:
    """Appends to one file what one fleet goes by; `take` is called by the loop, all else by others."""

    def __init__(self, path: Path, limit_bytes: int = _LIMIT_BYTES) -> None:
        """Take the file, which is not touched before `open`."""
        self.path = path
        self._limit_bytes = limit_bytes
        self._waiting: deque[Ticked] = deque()
        self._file = -1
        self._size = 0
        self._ended = ""

    def open(self, ledger: Ledger, *, seed: int, monotonic: float) -> None:
        """Begin to write: the header says what fleet it is, and where its numbers and clock begin.

        Raises:
            ConfigurationError: the file cannot be written to, or another fleet is writing it.

        """
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ConfigurationError(
                f"record {self.path} is being written by another fleet: name another file"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"record {self.path} cannot be written: {error.strerror}") from error
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._append("\n")  # the driver before was killed in the midst of a line
        self._append(_line(header(ledger, seed=seed, monotonic=monotonic)))

    def take(self, ticked: Ticked) -> None:
        """Keep a tick until it is written."""
        if self._ended:
            return
        self._waiting.append(ticked)
        if len(self._waiting) > _WAITING:
            self._end("it could not be written as fast as the fleet ticks")

    def write(self, _: Batch) -> None:
        """Write the ticks that have come.

        Raises:
            OSError: it cannot; they are kept.

        """
        if self._ended:
            self._waiting.clear()
            return
        rows = [self._waiting[index] for index in range(len(self._waiting))]
        self._append("".join(_line(tick_row(row)) for row in rows))
        while rows:
            self._waiting.popleft()
            rows.pop()
        if self._size > self._limit_bytes:
            self._end(f"it has {self._size} bytes")

    def close(self) -> None:
        """Let go of the file; harmless the second time."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _end(self, why: str) -> None:
        self._ended = why
        log.warning("record_ended", record=str(self.path), cause=why)

    def _append(self, text: str) -> None:
        data = text.encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(text.encode())


def header(ledger: Ledger, *, seed: int, monotonic: float) -> Mapping[str, Any]:
    """Return the first line of a record."""
    desired, shape = ledger.fleet.desired, ledger.shape
    return {
        "format": FORMAT,
        "versions": {name: _version(name) for name in ("sliceform", "ray")} | {"python": platform.python_version()},
        "seed": seed,
        "shape": {type(shape).__name__: shape.model_dump(mode="json")},
        "settings": ledger.settings.model_dump(mode="json"),
        "sizes": desired.sizes,
        "spares": desired.spares,
        "next_slice": ledger.fleet.next_number,
        "monotonic": monotonic,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
