"""The files through which an agent and the user's process on the same host know of each other.

One folder per attempt and host. `process` is held under a lock for the whole life of the user's process and of the
children it forks: whether the lock can be taken tells, without any race over process ids, whether they are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

#: Folders of controllers that are gone are removed after so long, seconds.
_STALE_S = 86_400.0


def root(incarnation: str) -> Path:
    """Return the folder of one controller's attempts on this host."""
    return Path(tempfile.gettempdir()) / f"sliceform-{os.getuid()}" / incarnation


def sweep() -> None:
    """Remove what controllers that are long gone left behind."""
    parent = root("any").parent
    if not parent.is_dir():
        return
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)


class Channel:
    """The folder of one attempt on one host."""

    def __init__(self, incarnation: str, host: str, attempt: str) -> None:
        """Name the folder by host id and attempt key; nothing is created yet."""
        self.folder = root(incarnation) / host.replace("/", "-") / attempt.replace("/", "-")

    def enter(self) -> int | None:
        """Register this process; return the locked file, to be kept open for ever, or None if it came too late."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / "process", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        if (self.folder / "dead").exists():
            os.close(handle)
            return None
        return handle

    def pid(self) -> int | None:
        """Return the process that has registered, alive or not."""
        try:
            text = (self.folder / "process").read_text()
        except OSError:
            return None
        return int(text) if text else None

    def held(self) -> bool:
        """Whether the process or a child that it forked is alive."""
        try:
            handle = os.open(self.folder / "process", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def ask_to_stop(self, deadline_epoch_s: float | None) -> None:
        """Make `should_stop()` true in the process, also if it starts later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / "stop.new"
        draft.write_text(json.dumps({"deadline_epoch_s": deadline_epoch_s}))
        draft.replace(self.folder / "stop")

    def asked_to_stop(self) -> tuple[bool, float | None]:
        """Return whether the process is to stop, and by when, epoch seconds."""
        try:
            text = (self.folder / "stop").read_text()
        except FileNotFoundError:
            return False, None
        return True, json.loads(text)["deadline_epoch_s"]

    def bury(self) -> None:
        """Keep a process of this attempt that starts later from running anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "dead").touch()
