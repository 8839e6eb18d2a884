"""Find and end the processes of an attempt on this host, through `/proc`.

A process belongs to an attempt if it is the user's process, is in its session, descends from it, or carries the
attempt's mark in the environment that it was started with. Killing goes through pidfds, so that a process id that was
given to another process meanwhile is not hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import NamedTuple

#: Set in the environment of the user's process before it runs anything.
MARK = "SLICEFORM_ATTEMPT_MARK"
_PROC = Path("/proc")


class Stat(NamedTuple):
    """The fields of `/proc/<pid>/stat` that matter here."""

    state: str
    parent: int
    session: int


def stat(pid: int) -> Stat | None:
    """Return what the kernel says of a process; None if there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], int(fields[1]), int(fields[3]))


def healthy(pid: int) -> bool:
    """Whether a process exists and is neither stopped nor dead; True where that cannot be known."""
    if not _PROC.is_dir():
        return True
    found = stat(pid)
    return found is not None and found.state not in {"T", "t", "Z", "X"}


def members(mark: str, leader: int | None) -> set[int]:
    """Return the living processes of an attempt; `leader` is the user's process, alive or not."""
    known = {int(entry.name): row for entry in _entries() if (row := stat(int(entry.name))) is not None}
    known = {pid: row for pid, row in known.items() if row.state not in {"Z", "X"}}
    wanted = f"{MARK}={mark}".encode()
    found = {pid for pid in known if pid != os.getpid() and wanted in _environment(pid)}
    if leader is not None:
        found |= {pid for pid, row in known.items() if leader in {pid, row.session}}
    while fresh := {pid for pid, row in known.items() if row.parent in found} - found:
        found |= fresh
    return found - {os.getpid(), os.getppid()}


def _entries() -> list[Path]:
    return [entry for entry in _PROC.iterdir() if entry.name.isdigit()] if _PROC.is_dir() else []


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def kill(pid: int) -> None:
    """End one process at once; does nothing if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
