"""End the processes of an attempt for certain, and clear away what agents that are gone left on this host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from pathlib import Path

from sliceform.controller.on_host import proc as processes
from sliceform.controller.on_host.attempt_folder import Channel, lock, root

log = logging.getLogger("sliceform.on_host")

#: How often it looks again, seconds: at first, and at most.
LOOK_S = 0.01
LOOK_MAX_S = 0.2
#: How long killed processes may take to be gone, seconds; one that waits for a device in the kernel cannot die before.
KILLED_S = 30.0
#: Folders without an agent's file are removed after so long, seconds.
_STALE_S = 86_400.0


async def ended(channel: Channel, within_s: float) -> bool:
    """Wait until nothing of an attempt is left, at most `within_s` seconds; return whether that is so."""
    end = time.monotonic() + within_s
    look_s = LOOK_S
    while channel.held() or left(channel):
        rest_s = end - time.monotonic()
        if rest_s <= 0:
            return False
        await asyncio.sleep(min(look_s, rest_s))
        look_s = min(LOOK_MAX_S, look_s * 1.2)
    return True


async def kill(channel: Channel, *, own: bool = True, within_s: float = KILLED_S) -> int:
    """Kill every process of an attempt until none is left; return how many there were.

    They are stopped before they are killed: a stopped process cannot start another one between look and kill. `own` as
    for `left`.

    Raises:
        TimeoutError: killed processes are still there after `within_s` seconds.

    """
    stopped: set[tuple[int, int]] = set()
    end = time.monotonic() + within_s
    leader = channel.leader() if own or channel.held() else None
    if leader is not None and leader.born is not None and leader.pid != os.getpid():
        processes.send(leader.pid, leader.born, signal.SIGSTOP)  # at once: to find the others takes a while
    while channel.held() | bool(found := left(channel, own=own)):
        if time.monotonic() > end:
            rows = ", ".join(f"{pid} (state {row.state})" for pid, row in sorted(found.items()))
            raise TimeoutError(
                f"{channel.mark}: still there {within_s:g} s after SIGKILL: {rows or 'unseen processes'}"
            )
        keys = {(pid, row.born) for pid, row in found.items()}
        if fresh := keys - stopped:
            for pid, born in fresh:
                processes.send(pid, born, signal.SIGSTOP)
            stopped |= fresh
            await asyncio.sleep(0)
            continue
        for pid, born in keys:
            processes.send(pid, born, signal.SIGKILL)
        if not found:
            _kill_blindly(channel)
        await asyncio.sleep(LOOK_S)
    return len(stopped)


async def finish(channel: Channel) -> None:
    """End an attempt that is over, and keep nothing of it but its tombstone; one that is in order costs nothing.

    Raises:
        TimeoutError: as for `kill`.

    """
    if channel.buried() and channel.leader() is None:
        return
    channel.bury()
    if killed := await kill(channel):
        log.warning("ended %d processes that %s had left", killed, channel.mark)
    channel.forget()


async def clear(mark: str) -> None:
    """End an attempt whose agent may be gone, for good; `mark` is that of its channel.

    Raises:
        TimeoutError: as for `kill`.

    """
    incarnation, host, attempt = mark.split("/")
    channel = Channel(incarnation, host, attempt)
    channel.bury()
    if killed := await kill(channel):
        log.warning("ended %d processes that %s had left", killed, mark)


def left(channel: Channel, *, own: bool = True) -> dict[int, processes.Stat]:
    """Return the living processes of an attempt; none where there is no `/proc` to find them in.

    `own`: it is an attempt of this agent's. The process id in a folder that is merely found may be from before a
    reboot, and says something only while somebody holds the lock.
    """
    leader = channel.leader() if own or channel.held() else None
    pid, born = leader or (None, None)
    return processes.members(channel.mark, pid, born, channel.run_file)


def _kill_blindly(channel: Channel) -> None:
    """Where there is no `/proc`, kill the user's process with its group; the lock says that something is there."""
    leader = channel.leader()
    if leader is None or leader.born is not None or leader.pid == os.getpid():
        return
    try:
        os.killpg(leader.pid, signal.SIGKILL)
    except ProcessLookupError:
        processes.send(leader.pid, None, signal.SIGKILL)


async def sweep(own: Path) -> None:
    """End and remove what agents that are gone have left on this host; `own` is the folder of the one that asks."""
    for folder in _hosts():
        if folder == own or not ((folder / "agent").exists() or _age_s(folder) > _STALE_S):
            continue
        handle = lock(folder / "agent")
        if handle is None:
            continue
        try:
            await _clear(folder)
        except (OSError, TimeoutError) as error:
            # A process beyond our reach must not keep this host from work that may not even mind it.
            log.warning("left behind by an agent that is gone, and not cleared away: %s: %r", folder, error)
        finally:
            os.close(handle)


async def _clear(folder: Path) -> None:
    for attempt in folders(folder):
        channel = Channel.at(attempt)
        channel.bury()
        if killed := await kill(channel, own=False):
            log.warning("ended %d processes of %s, whose agent is gone", killed, channel.mark)
    shutil.rmtree(folder)
    # The last host of a controller takes the controller's folder with it.
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def folders(parent: Path) -> list[Path]:
    """Return the folders in a folder that may not exist."""
    try:
        return [entry for entry in parent.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def _hosts() -> list[Path]:
    return [host for incarnation in folders(root()) for host in folders(incarnation)]


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
