"""Find, freeze and kill the processes of virtual hosts; run as a script, the warden of a cluster.

A process belongs to a virtual host if it carries the host's mark in its environment, lives in the
session of a process that does, or descends from one. The mark survives `setsid`; session and descent
catch what has lost the mark (Ray's workers overwrite their environment block with their title).

Linux only (`/proc`). Standard library only, no import of sliceform: the warden runs this file by path.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

#: Environment variable that marks every process of a virtual host: `<cluster>/<host>`.
MARK = "SLICEFORM_VIRTUAL_HOST"

_POLL_S = 0.01


class _Stat(NamedTuple):
    state: str
    parent: int
    session: int


def state_of(pid: int) -> str | None:
    """The state letter of a process (`R`, `S`, `T` for stopped...), or None if it is dead or a zombie."""
    stat = _stat(pid)
    return None if stat is None else stat.state


def members(mark: str, *, session: int | None = None) -> set[int]:
    """The living processes of a host (`<cluster>/<host>`) or of a cluster (`<cluster>/`).

    `session` is the session of the host where it is known: it must be one whose leader nobody has
    reaped yet, so that its number cannot have been given to a stranger.
    """
    stats = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
    marked = {pid for pid in stats if _is_marked(pid, mark)}
    sessions = {stats[pid].session for pid in marked}
    if session is not None:
        sessions.add(session)
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found: set[int] = set()
    todo = [pid for pid, stat in stats.items() if pid in marked or stat.session in sessions]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return found - {1, os.getpid()}


def send(pids: Collection[int], signum: int) -> None:
    """Send a signal to each process; those already gone are skipped."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


def freeze(select: Callable[[], set[int]], *, timeout_s: float = 10.0) -> set[int]:
    """Stop all processes that `select` names, and those they start meanwhile; return them.

    Raises:
        TimeoutError: if some still run after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        pids = select()
        running = {pid for pid in pids if state_of(pid) not in ("T", "t", None)}
        if not running:
            return pids
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(running)} did not stop in {timeout_s:g} s")
        send(running, signal.SIGSTOP)
        time.sleep(_POLL_S)


def kill(select: Callable[[], set[int]], *, timeout_s: float = 20.0) -> None:
    """Kill all processes that `select` names, and those they start meanwhile, and wait for their end.

    They are stopped first, so that all end as of one moment and none can start another.

    Raises:
        TimeoutError: if some are still there after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    # What cannot be stopped in time (a process in an uninterruptible call) is killed all the same.
    try:
        pids = freeze(select, timeout_s=min(2.0, timeout_s))
    except TimeoutError:
        pids = select()
    while pids:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(pids)} survived SIGKILL for {timeout_s:g} s")
        send(pids, signal.SIGKILL)
        time.sleep(_POLL_S)
        pids = {pid for pid in pids if state_of(pid) is not None} | select()


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command stands in parentheses and may hold spaces and parentheses itself.
    state, parent, _group, session = text.rpartition(")")[2].split()[:4]
    return None if state in "ZX" else _Stat(state, int(parent), int(session))


def _is_marked(pid: int, mark: str) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    start = f"{MARK}={mark}".encode()
    return any(entry == start or (mark.endswith("/") and entry.startswith(start)) for entry in environ.split(b"\0"))


def _warden(mark: str, directory: str) -> None:
    """Wait until the owner of the cluster closes our standard input or dies; then clear up."""
    while os.read(0, 4096):
        pass
    try:
        kill(lambda: members(mark))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _warden(*sys.argv[1:])
