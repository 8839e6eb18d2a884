"""One writer at a time: a lock file beside the journal, which the system gives back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from sliceform.controller.errors import JournalError, JournalInUseError

#: A reader that looks whether anybody writes holds the lock for a moment: how often to try again, and for how long.
_AGAIN_S = 0.02
_TRY_S = 0.5


class WriterLock:
    """Held by the fleet that writes a journal.

    The journal itself is not locked so: closing any descriptor of a SQLite file drops SQLite's own locks on it.
    """

    def __init__(self, path: Path) -> None:
        """Take the path of the journal; nothing is locked yet."""
        self._journal = path
        self._path = lock_path(path)
        self._file: int | None = None

    def take(self, holder: str) -> None:
        """Lock, and write down who does.

        Raises:
            JournalInUseError: another fleet has it; says which.
            JournalError: the lock file cannot be made.

        """
        end = time.monotonic() + _TRY_S
        while self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise JournalError(f"{self._path} cannot be made: {error.strerror}") from error
            if _try(file, fcntl.LOCK_EX) and _same(file, self._path):
                self._file = file
                break
            by = os.read(file, 200).decode(errors="replace").strip()
            os.close(file)
            if time.monotonic() > end:
                raise JournalInUseError(
                    f"{self._journal} is written by another fleet{by and f' ({by})'}:"
                    " close that one first, or choose another file"
                )
            time.sleep(_AGAIN_S)
        os.ftruncate(self._file, 0)
        os.write(self._file, holder.encode())

    def release(self) -> None:
        """Unlock and remove the lock file; does nothing if it is not held."""
        if self._file is not None:
            if _same(self._file, self._path):
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def lock_path(journal: Path) -> Path:
    """Return the path of a journal's lock file: the same whatever links and folders the journal was found through."""
    real = Path(os.path.realpath(journal))
    return real.with_name(real.name + ".lock")


def is_held(lock: Path) -> bool:
    """Whether some fleet on this machine holds this lock file now."""
    try:
        file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _same(file: int, path: Path) -> bool:
    """Whether the file that was locked is still the one at this path: its holder removes it when it ends."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
