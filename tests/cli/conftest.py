"""A journal with an incident in it: a run loses a host, its slice is replaced, and the fleet waits for a third one."""

import contextlib
import fcntl
import logging
import os
import pty
import select
import sqlite3
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from sliceform.controller.api.controller import SliceController
from sliceform.controller.cli import main
from sliceform.controller.follow.journal import open_journal
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend

BOUND_S = 20.0
_MAIN = "import sys; from sliceform.controller.cli import main; sys.exit(main())"

#: The fleet begins then, 2023-11-14 22:13:20 UTC.
EPOCH = 1_700_000_000.0


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """A simulated fleet would log every change."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module")
def closed(quiet: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a fleet that was closed."""
    path = tmp_path_factory.mktemp("closed") / "fleet.db"
    write_incident(path, EPOCH, closed=True)
    return path


@pytest.fixture(scope="module")
def living(quiet: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The journal of a fleet that is still there."""
    path = tmp_path_factory.mktemp("living") / "fleet.db"
    fleet = write_incident(path, EPOCH, closed=False)
    yield path
    fleet.close(grace_s=0.0)


@pytest.fixture(scope="module")
def killed(quiet: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The journal of a driver that was killed while a run worked, one waited and a slice was missing."""
    path = tmp_path_factory.mktemp("killed") / "fleet.db"
    fleet = write_incident(path.with_name("living.db"), EPOCH, closed=False)
    for _ in range(2):
        fleet.options(slices=2).submit(int)
    for _ in range(4):
        fleet._clock.advance(0.25)
        fleet.step()
    _until_written(fleet, path.with_name("living.db"))
    living, copy = sqlite3.connect(path.with_name("living.db")), sqlite3.connect(path)
    with contextlib.closing(living), contextlib.closing(copy):
        living.backup(copy)
    yield path
    fleet.close(grace_s=0.0)


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Ask the command line in this process, in UTC; give exit code, output and errors."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    def one(*words: Any) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield one
    monkeypatch.undo()
    time.tzset()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words: Any, lines: int = 24, columns: int = 200, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        left_out = {"NO_COLOR", "FORCE_COLOR", "LINES", "COLUMNS"}
        inherited = {name: value for name, value in os.environ.items() if name not in left_out}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=inherited | {"TZ": "UTC", "TERM": "xterm-256color"} | environment,
        )
        os.close(theirs)
        self.said = ""

    def until(self, text: str) -> None:
        """Read until the command has said this."""
        end = time.monotonic() + BOUND_S
        while text not in self.said:
            assert self._read(end), f"{text!r} was not said, but at last: {self.said[-500:]!r}"

    def ended(self) -> int:
        """Read to the end; give the exit code."""
        end = time.monotonic() + BOUND_S
        while self._read(end):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def close(self) -> None:
        """End the command if it has not ended."""
        self.process.kill()
        self.process.wait(BOUND_S)
        os.close(self._ours)

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
        data = b""
        with contextlib.suppress(OSError):  # nobody writes to it any more
            data = os.read(self._ours, 65536) if ready else b""
        self.said += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Terminal]]:
    """Start commands on terminals; none of them outlives the test."""
    with contextlib.ExitStack() as stack:

        def start(*words: Any, **options: Any) -> Terminal:
            return stack.enter_context(contextlib.closing(Terminal(*words, **options)))

        yield start


def write_incident(path: Path, epoch: float, *, closed: bool) -> SliceController:
    """Live through it on a simulated cluster; give the fleet, which is closed or goes on to be written."""
    clock = FakeClock(epoch=epoch)
    shape = TpuSlice("v4-16")
    sim = SimBackend(shape, ["rack-a", "rack-b", "rack-c"], clock=clock, work_s=10.0)
    fleet = SliceController(shape, 2, name="train", backend=sim, clock=clock, journal=path)

    def let(seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            clock.advance(0.25)
            fleet.step()

    fleet.wait_ready(2)
    run = fleet.submit(max, 1, 2)
    let(3.0)
    sim.kill_host("rack-b", 1)
    run.result()
    sim.hold("rack-b", by="another")
    fleet.scale(3)
    let(5.0)
    if closed:
        fleet.close()
    else:
        _until_written(fleet, path)
    return fleet


def _until_written(fleet: SliceController, path: Path) -> None:
    pause = threading.Event()
    with open_journal(path) as journal:
        for _ in range(round(BOUND_S / 0.01)):
            if journal.last_seq == fleet.history.last_seq:
                return
            pause.wait(0.01)
    raise AssertionError("the journal stays behind")
