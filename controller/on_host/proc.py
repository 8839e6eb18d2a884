"""Find the processes of an attempt on this host through `/proc`, and send them signals.

A process belongs to an attempt if it is the user's process, is in its session or process group, descends from it,
carries the attempt's mark in the environment that it was started with, or still holds the attempt's run file. What is
out of reach: a process that left the session, started a program with an environment of its own, and lost its parents.

A process id says nothing once its process is gone: what a scan found is known by id *and* start time, and a signal goes
through a pidfd whose process was looked at again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("sliceform.on_host")

#: Set in the environment of the user's process before it runs anything.
MARK = "SLICEFORM_ATTEMPT_MARK"
_PROC = Path("/proc")
_DEAD = frozenset("ZXx")
_STOPPED = frozenset("Tt")
#: `PF_EXITING` in Linux's include/linux/sched.h.
_EXITING = 0x4


class Stat(NamedTuple):
    """The fields of `/proc/<pid>/stat` that matter here."""

    #: `R`, `S`, `D` and so on; `T` and `t` are stopped, `Z` and `X` dead.
    state: str
    parent: int
    group: int
    session: int
    #: Start time in clock ticks since boot.
    born: int
    #: It has begun to end: it may have closed what it had open, and still be seen for a while.
    exiting: bool

    @property
    def dead(self) -> bool:
        """Whether nothing of it is left but its number."""
        return self.state in _DEAD


def stat(pid: int) -> Stat | None:
    """Return what the kernel says of a process; None if there is none."""
    try:
        # Read without decoding: the name of a program can be any bytes.
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    parent, group, session, flags, born = (int(fields[at]) for at in (1, 2, 3, 6, 19))
    return Stat(fields[0].decode(), parent, group, session, born, bool(flags & _EXITING))


def has_proc() -> bool:
    """Whether this system says what runs on it."""
    return _PROC.is_dir()


def healthy(pid: int) -> bool:
    """Whether a process exists and is neither stopped nor dead; True where that cannot be known."""
    if not has_proc():
        return True
    found = stat(pid)
    return found is not None and not found.dead and found.state not in _STOPPED


def is_alive(pid: int, born: int | None) -> bool:
    """Whether that very process lives and does not end already; True where that cannot be known."""
    if born is None or not has_proc():
        return True
    found = stat(pid)
    return found is not None and found.born == born and not found.dead and not found.exiting


def ancestor(name: bytes) -> int | None:
    """Return the nearest process of that name among those that this one descends from; None if none is seen."""
    pid = os.getppid()
    while pid > 0:
        try:
            if (_PROC / str(pid) / "comm").read_bytes().strip() == name:
                return pid
        except OSError:
            return None
        row = stat(pid)
        pid = row.parent if row is not None else 0
    return None


def living() -> dict[int, Stat]:
    """Return the processes of this machine."""
    return {pid: row for pid in _ids() if (row := stat(pid)) is not None and not row.dead}


def members(mark: str, leader: int | None, born: int | None, run_file: Path) -> dict[int, Stat]:
    """Return the living processes of an attempt; never this process, nor one that it descends from.

    `leader` is the id of the user's process, which may be gone, and `born` its start time.
    """
    known = living()
    spared = set(_line(os.getpid(), known))
    carried = f"{MARK}={mark}\0".encode()
    found = {pid for pid in known if carried in environ(pid)}
    if leader is not None and (leader not in known or known[leader].born == born):
        # As long as a session or a group has a member, the kernel gives its number to no new process.
        found |= {pid for pid, row in known.items() if leader in {pid, row.session, row.group}}
    while fresh := {pid for pid, row in known.items() if row.parent in found} - found:
        found |= fresh
    if not found:
        found = set(_holders(run_file, known))
    return {pid: known[pid] for pid in found - spared}


def others() -> dict[int, Stat]:
    """Return the living processes of this host but this one and those that it descends from."""
    known = living()
    spared = set(_line(os.getpid(), known))
    return {pid: row for pid, row in known.items() if pid not in spared}


def environ(pid: int) -> bytes:
    """Return what a process was started with, as the kernel keeps it; nothing where it is not ours to read."""
    try:
        return (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""


def environment(pid: int) -> dict[str, str]:
    """Return the variables that a process was started with; none where they are not ours to read."""
    pairs = (entry.partition(b"=") for entry in environ(pid).split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def send(pid: int, born: int | None, number: signal.Signals) -> None:
    """Send a signal to the process that was born then; do nothing if it is gone, log if it may not be reached."""
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return
    except OSError as error:
        # Old kernels, and some sandboxes, have no pidfds.
        log.info("no pidfd of process %d: %r", pid, error)
        handle = None
    try:
        found = stat(pid)
        if born is not None and (found is None or found.born != born):
            return
        if handle is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        log.warning("process %d of an attempt cannot be sent %s: %r", pid, number.name, error)
    finally:
        if handle is not None:
            os.close(handle)


def _ids() -> Iterator[int]:
    try:
        entries = os.scandir(_PROC)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def _line(pid: int, known: dict[int, Stat]) -> Iterator[int]:
    """Yield a process and all that it descends from."""
    while pid in known:
        yield pid
        pid = known[pid].parent


def _holders(path: Path, known: dict[int, Stat]) -> Iterator[int]:
    """Yield who has this file open; slow, and only needed for children that were forked and then left everything."""
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return
    for pid in known:
        # Processes come and go meanwhile, and those of others are closed to us.
        with contextlib.suppress(OSError), os.scandir(_PROC / str(pid) / "fd") as entries:
            if any(_is(entry, wanted) for entry in entries):
                yield pid


def _is(entry: os.DirEntry[str], wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(entry.stat(), wanted)
    except OSError:
        # Closed since, or a pipe or socket of a process that is just ending.
        return False
