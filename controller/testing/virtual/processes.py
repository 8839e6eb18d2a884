"""Find, freeze and kill the processes of virtual hosts; run as a module, the warden of a cluster.

A process belongs to a virtual host if it carries the host's mark in its environment, lives in the
session of a process that does, or descends from one. The mark survives `setsid`; session and descent
catch what has lost the mark (Ray's workers overwrite their environment block with their title).

Linux only (`/proc`).
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection

from sliceform.controller.on_host.proc import environ, living, stat

#: Environment variable that marks every process of a virtual host: `<cluster>/<host>`.
MARK = "SLICEFORM_VIRTUAL_HOST"

_POLL_S = 0.01


def state_of(pid: int) -> str | None:
    """The state letter of a process (`R`, `S`, `T` for stopped...), or None if it is dead or a zombie."""
    found = stat(pid)
    return None if found is None or found.dead else found.state


def members(mark: str, *, session: int | None = None) -> set[int]:
    """The living processes of a host (`<cluster>/<host>`) or of a cluster (`<cluster>/`).

    `session` is the session of the host where it is known: it must be one whose leader nobody has
    reaped yet, so that its number cannot have been given to a stranger.
    """
    rows = living()
    marked = {pid for pid in rows if _is_marked(pid, mark)}
    sessions = {rows[pid].session for pid in marked}
    if session is not None:
        sessions.add(session)
    children: dict[int, list[int]] = {}
    for pid, row in rows.items():
        children.setdefault(row.parent, []).append(pid)
    found: set[int] = set()
    todo = [pid for pid, row in rows.items() if pid in marked or row.session in sessions]
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


def _is_marked(pid: int, mark: str) -> bool:
    start = f"{MARK}={mark}".encode()
    entries = environ(pid).split(b"\0")
    return any(entry == start or (mark.endswith("/") and entry.startswith(start)) for entry in entries)


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
