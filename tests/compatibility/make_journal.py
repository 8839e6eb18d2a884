"""Write the journal of a small fleet that a bit of everything happens to: `python make_journal.py FILE`.

`journal-0.1.0.sqlite` beside this file was made by it with version 0.1.0 (commit e44cbb0) and is never made anew: it
stands for the journals that users have. It uses public names alone, so that later versions can leave one behind, too.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import sqlite3
import sys
import tempfile
import time
import uuid
from pathlib import Path

import structlog

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.follow.journal import open_journal
from sliceform.controller.testing import FakeClock, SimBackend

SHAPE = TpuSlice("v4-16")
PLACES = ["rack-a", "rack-b", "rack-c", "rack-d"]


class World:
    """A fleet on a simulated cluster, driven step by step."""

    def __init__(self, path: Path, epoch: float) -> None:
        self.clock = FakeClock(epoch=epoch)
        self.sim = SimBackend(SHAPE, PLACES, clock=self.clock, work_s=5.0)
        self.fleet = SliceController(
            SHAPE, [1, 2], spares=1, name="old", settings=Settings(), backend=self.sim, clock=self.clock, journal=path
        )

    def go(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            self.fleet.step()


def live(path: Path) -> None:
    """Be the first driver, which closes."""
    world = World(path, 1_700_000_000.0)
    fleet, sim = world.fleet, world.sim
    fleet.wait_ready(2)
    world.go(2.0)
    # A run of two attempts: a host of its first slice is lost, the spare takes its place, and the slice is replaced.
    interrupted = fleet.submit(max, 1, 2)
    world.go(2.0)
    sim.kill_host("rack-a", 1)
    interrupted.result()
    sim.restore_slice("rack-a")
    # One that fails.
    fleet.submit(int, "one").wait()
    # A notice that comes true.
    noticed = fleet.submit(max, 1, 2)
    world.go(1.0)
    sim.notice("rack-b", 0, deadline_in_s=20.0)
    world.go(1.0)
    sim.kill_host("rack-b", 0)
    noticed.wait()
    sim.restore_slice("rack-b")
    # One that is cancelled at work, and one that is cancelled while it waits.
    worked, waited = fleet.submit(max, 1, 2), fleet.submit(max, 1, 2)
    world.go(1.0)
    waited.cancel(0.0)
    worked.cancel(1.0)
    world.go(3.0)
    fleet.scale([2, 4], spares=0)
    world.go(5.0)
    fleet.drain(fleet.status().slices[0].id)
    world.go(5.0)
    fleet.scale(1)
    world.go(5.0)
    fleet.close()


def be_killed(path: Path, copy: Path) -> None:
    """Be the second driver, and leave the file as it is while a run works, one waits and a slice is missing."""
    world = World(path, 1_700_001_000.0)
    fleet = world.fleet
    fleet.wait_ready(2)
    world.go(2.0)
    for _ in range(2):
        fleet.options(slices=2).submit(max, 1, 2)
    world.go(2.0)
    world.sim.kill_host("rack-c", 0)
    world.go(0.5)
    with open_journal(path) as journal:
        while journal.last_seq < fleet.history.last_seq:
            time.sleep(0.01)
    with contextlib.closing(sqlite3.connect(path)) as ours, contextlib.closing(sqlite3.connect(copy)) as theirs:
        ours.backup(theirs)
        theirs.execute("VACUUM")
    fleet.close(grace_s=0.0)


if __name__ == "__main__":
    draw = random.Random(1)
    uuid.uuid4 = lambda: uuid.UUID(int=draw.getrandbits(128))
    socket.gethostname = lambda: "driver-host"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        live(Path(folder) / "fleet.db")
        be_killed(Path(folder) / "fleet.db", Path(sys.argv[1]))
