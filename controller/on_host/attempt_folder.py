"""The files through which an agent and the user's process on the same host know of each other.

One folder per attempt and host. `process` is held under a lock for the whole life of the user's process and of the
children it forks: whether the lock can be taken tells, without any race over process ids, whether they are gone. In the
folder above it the agent holds `agent` in the same way, so that others can tell what nobody looks after any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from sliceform.controller.on_host.proc import is_alive, stat

#: How long whoever looks whether the lock is free may keep it taken, seconds; they do so for microseconds.
_ENTER_S = 2.0


class Leader(NamedTuple):
    """The user's process, as it registered."""

    pid: int
    #: When the kernel says that it started, in clock ticks since boot; None on systems without `/proc`.
    born: int | None


def root() -> Path:
    """Return the folder of all attempts on this host, this user's alone; it may not exist yet.

    Raises:
        PermissionError: it belongs to somebody else, who could then say which processes are to be killed.

    """
    folder = Path(tempfile.gettempdir()) / f"sliceform-{os.getuid()}"
    with contextlib.suppress(FileNotFoundError):
        if folder.lstat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user: remove it, or set TMPDIR on this host")
    return folder


def locked(path: Path) -> bool:
    """Whether somebody holds this file's lock; False where there is no such file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def lock(path: Path, within_s: float = 0.0) -> int | None:
    """Create the file, with its folders, and lock it; return the open handle, or None if somebody else holds it."""
    end = time.monotonic() + within_s
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(handle).st_ino:
                    return handle
            # It was removed between the two calls: what is locked here nobody else will ever see.
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(handle)
                return None
        os.close(handle)
        time.sleep(0.002)


class Channel:
    """The folder of one attempt on one host."""

    def __init__(self, incarnation: str, host: str, attempt: str) -> None:
        """Name the folder by controller, host id and attempt key; nothing is created yet."""
        self.folder = root() / incarnation / host.replace("/", "-") / attempt.replace("/", "-")

    @classmethod
    def at(cls, folder: Path) -> Channel:
        """Return the channel of a folder that was found."""
        channel = cls.__new__(cls)
        channel.folder = folder
        return channel

    @property
    def mark(self) -> str:
        """What the attempt's processes on this host carry in their environment; no other attempt or host has it."""
        return "/".join(self.folder.parts[-3:])

    @property
    def context_file(self) -> Path:
        """The file that tells processes which the user's process starts whose they are."""
        return self.folder / "context"

    @property
    def run_file(self) -> Path:
        """The file that the user's process holds."""
        return self.folder / "process"

    def enter(self) -> int | None:
        """Register this process; return the locked file, to be kept open for ever, or None if it came too late.

        Raises:
            RuntimeError: another process of the same attempt is still there.

        """
        handle = lock(self.run_file, _ENTER_S)
        if handle is None:
            raise RuntimeError(f"{self.mark} runs on this host already: {self.leader()}")
        found = stat(os.getpid())
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()} {found.born if found else ''}".encode())
        if self.buried():
            os.close(handle)
            return None
        return handle

    def leader(self) -> Leader | None:
        """Return the process that has registered, alive or not."""
        try:
            words = self.run_file.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return None
        return Leader(int(words[0]), int(words[1]) if len(words) > 1 else None) if words else None

    def held(self) -> bool:
        """Whether the process or a child that it forked is alive."""
        return locked(self.run_file)

    def ask_to_stop(self, deadline_epoch_s: float | None) -> None:
        """Make `should_stop()` true in the process, also if it starts later; the earliest deadline holds."""
        self._ask()
        _, known = self.asked_to_stop()
        deadlines = [deadline for deadline in (known, deadline_epoch_s) if deadline is not None]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / "stop.new"
        draft.write_text(json.dumps({"deadline_epoch_s": min(deadlines, default=None)}), encoding="ascii")
        draft.replace(self.folder / "stop")

    def ended_unasked(self) -> bool:
        """Whether the process was dead when it was first asked to stop."""
        return (self.folder / "unasked").exists()

    def _ask(self) -> None:
        """Keep in mind whether the process was dead, if it is asked to stop for the first time."""
        leader = self.leader()
        first = not (self.folder / "stop").exists() and not self.buried()
        if first and leader is not None and not is_alive(leader.pid, leader.born):
            (self.folder / "unasked").touch(mode=0o600)

    def answering(self) -> None:
        """Say that the process has raised, and has only to hand over what."""
        (self.folder / "answer").touch(mode=0o600)

    def answers(self) -> bool:
        """Whether the process has raised, and has only to hand over what."""
        return (self.folder / "answer").exists()

    def asked_to_stop(self) -> tuple[bool, float | None]:
        """Return whether the process is to stop, and by when, epoch seconds."""
        try:
            text = (self.folder / "stop").read_text(encoding="ascii")
        except FileNotFoundError:
            return False, None
        return True, json.loads(text)["deadline_epoch_s"]

    def cut(self, why: str) -> None:
        """Say that this host ends the process by its own clock, unless it has ended or was asked to already."""
        leader = self.leader()
        if not self.buried() and leader is not None and is_alive(leader.pid, leader.born):
            (self.folder / "cut").write_text(why, encoding="utf-8")

    def why_cut(self) -> str:
        """Return why this host ended the process by its own clock; empty if it did not."""
        try:
            return (self.folder / "cut").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def bury(self) -> None:
        """Keep a process of this attempt that starts later from running anything."""
        self._ask()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "dead").touch(mode=0o600)

    def forget(self) -> None:
        """Remove all but the tombstone: a process of this attempt may still start."""
        for name in ("process", "context", "answer", "unasked", "cut", "stop", "stop.new"):
            (self.folder / name).unlink(missing_ok=True)

    def buried(self) -> bool:
        """Whether the attempt is over on this host, whatever still starts."""
        return (self.folder / "dead").exists()
