"""See to it that nothing left over keeps a host's TPU from the next attempt: processes that hold it, a lock file.

Whoever holds a device is found through `/proc`, as far as this user may look.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from sliceform.controller.on_host import cleanup
from sliceform.controller.on_host import proc as processes
from sliceform.controller.on_host.attempt_folder import Channel, locked, root

log = logging.getLogger("sliceform.on_host")

#: How TPU chips appear: through VFIO on newer machines, with a driver of their own on older ones.
DEVICES = ("/dev/vfio/*", "/dev/accel*")
#: libtpu takes a POSIX lock on it for the life of its process, and gives up if it cannot open it, for example since it
#: is another user's (tensorflow/core/tpu/tpu_initializer_helper.cc, whose code libtpu has).
LOCKFILE = Path("/tmp/libtpu_lockfile")  # noqa: S108 - libtpu's own name
_COMMAND = 200


class Holder(NamedTuple):
    """A process that has a device open."""

    pid: int
    born: int
    device: str
    #: What marks it as part of an attempt; None if it is not ours, or not ours to read.
    mark: str | None


async def clean(
    *,
    tpu: bool = False,
    holders: bool = False,
    kill_others: bool = False,
    devices: Sequence[str] = DEVICES,
    lockfile: Path = LOCKFILE,
    killed_s: float = 10.0,
    sudo_s: float = 5.0,
) -> None:
    """Clean this host, if it has a TPU; what cannot be done is logged, since the attempt may not mind.

    Args:
        tpu: Whether the slice is one of TPU hosts; other hosts are looked at for TPU chips.
        holders: Whether to look who holds the devices, and end those that runs of ours left whose agent is gone.
        kill_others: Whether to end holders of anybody else's, too, but never a run that an agent looks after.
        devices: Patterns of their paths.
        lockfile: libtpu's.
        killed_s: How long killed holders may take to let go, seconds.
        sudo_s: How long `sudo` may take to answer, seconds.

    """
    if not tpu and not _has_chips():
        return
    try:
        if holders:
            await _free(devices, kill_others=kill_others, within_s=killed_s)
        await asyncio.to_thread(_remove, lockfile, sudo_s)
    except (OSError, TimeoutError, subprocess.SubprocessError) as error:
        log.warning("this host could not be cleaned: %r", error)


def _has_chips() -> bool:
    return any(Path("/dev").glob("accel*"))


def find(devices: Sequence[str] = DEVICES) -> list[Holder]:
    """Return who has one of the devices open; never this process, nor one that it descends from."""
    found = []
    for pid, row in processes.others().items():
        paths = _open_files(pid)
        device = next((path for path in paths if any(fnmatch(path, pattern) for pattern in devices)), None)
        if device is not None:
            found.append(Holder(pid, row.born, device, _mark(pid, paths)))
    return found


async def _free(devices: Sequence[str], *, kill_others: bool, within_s: float) -> None:
    reported: set[int] = set()
    end = time.monotonic() + within_s
    while found := await asyncio.to_thread(find, devices):
        condemned = [holder for holder in found if _left_over(holder) or (kill_others and not _looked_after(holder))]
        for holder in found:
            if holder.pid not in reported:
                reported.add(holder.pid)
                verdict = "is killed" if holder in condemned else "is let be"
                log.warning("process %d holds %s and %s: %s", holder.pid, holder.device, verdict, _command(holder.pid))
        if not condemned:
            return
        if time.monotonic() > end:
            pids = ", ".join(str(holder.pid) for holder in condemned)
            raise TimeoutError(f"processes {pids} still hold devices {within_s:g} s after SIGKILL")
        for holder in condemned:
            processes.send(holder.pid, holder.born, signal.SIGKILL)
            if holder.mark is not None:
                await cleanup.kill(Channel.at(root() / holder.mark), own=False)
        await asyncio.sleep(cleanup.LOOK_MAX_S)


def _left_over(holder: Holder) -> bool:
    """Whether a run of ours left it whose agent is gone."""
    return holder.mark is not None and not _looked_after(holder)


def _looked_after(holder: Holder) -> bool:
    return holder.mark is not None and locked((root() / holder.mark).parent / "agent")


def _mark(pid: int, paths: Sequence[str]) -> str | None:
    """Return the attempt that a process belongs to, if its folder is, or was, where this agent looks for it.

    The user's process and what it forked hold its run file, though it may be removed; what was started by them has the
    mark in its environment.
    """
    for path in paths:
        file = Path(path.removesuffix(" (deleted)"))
        if file.name == "process" and file.parents[3:] and file.parents[3] == root():
            return Channel.at(file.parent).mark
    variables = processes.environment(pid)
    mark = variables.get(processes.MARK, "")
    here = variables.get("TMPDIR") == os.environ.get("TMPDIR")
    return mark if here and len(Path(mark).parts) == len(("incarnation", "host", "attempt")) else None


def _open_files(pid: int) -> list[str]:
    paths = []
    # Processes come and go meanwhile, and those of others are closed to us.
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                paths.append(str(Path(entry.path).readlink()))
    return paths


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(gone)"
    return " ".join(word.decode(errors="replace") for word in words if word)[:_COMMAND]


def _remove(lockfile: Path, sudo_s: float) -> None:
    """Remove libtpu's lock file if nobody holds it; where only root may, ask `sudo`, which must not ask back."""
    try:
        handle = os.open(lockfile, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except PermissionError:
        # One that cannot even be read says nothing of its holder.
        log.warning("%s may not be read: if libtpu fails, remove it", lockfile)
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        lockfile.unlink(missing_ok=True)
    except BlockingIOError:
        log.warning("%s is held: something on this host uses the TPU", lockfile)
    except PermissionError:
        _remove_as_root(lockfile, sudo_s)
    finally:
        os.close(handle)


def _remove_as_root(lockfile: Path, sudo_s: float) -> None:
    command = ["sudo", "-n", "rm", "-f", str(lockfile)]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=sudo_s, check=False
        )
    except FileNotFoundError:
        log.warning("%s belongs to another user, and there is no sudo: if libtpu fails, remove it", lockfile)
        return
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[:_COMMAND]
        log.warning("%s belongs to another user and cannot be removed: %s", lockfile, words)
