"""Drivers that are killed: each child writes a journal of a busy simulated fleet, and tells how far it has come."""

import logging
import os
import sys
import threading
import time
from pathlib import Path

import structlog

from sliceform.controller.api.controller import SliceController
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.journal.writer import JournalWriter
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend

#: What the journal's thread is to sleep between two writes, seconds.
PAUSE_S = 0.02


class Pace:
    """Counts the writes of a journal that have begun, and the pauses of a thread that only sleeps beside it."""

    def __init__(self, monkeypatched: type[JournalWriter]) -> None:
        self.writes = self.pauses = 0
        write = monkeypatched.write

        def counted(writer: JournalWriter, batch: Batch) -> None:
            self.writes += 1
            write(writer, batch)

        monkeypatched.write = counted  # type: ignore[method-assign]
        threading.Thread(target=self._sleep, daemon=True).start()

    def _sleep(self) -> None:
        while True:
            time.sleep(PAUSE_S)
            self.pauses += 1


def fleet_without_end(path: Path, tell: int) -> None:
    """Run slices to death until killed; after every tick write the last change's number and the pace to `tell`."""
    pace = Pace(JournalWriter)
    clock = FakeClock(epoch=time.time())
    shape = TpuSlice("v4-16")
    sim = SimBackend(shape, 6, clock=clock, work_s=2.0)
    settings = Settings(avoid_lost_s=1.0, quarantine_after=1000)
    fleet = SliceController(shape, 4, settings=settings, backend=sim, clock=clock, journal=path)
    tick = 0
    while True:
        tick += 1
        clock.advance(0.25)
        fleet.step()
        if tick % 5 == 0:
            rows = [row for row in fleet.status().slices if row.state == "running"]
            if rows:
                sim.kill_host(rows[0].place, 1)
                sim.restore_slice(rows[0].place)
            fleet.options(slices=1).submit(max, 1, 2)
        # The number first: a write that begins after it was read has, but for the first one, that change in it.
        last_seq = fleet.history.last_seq
        os.write(tell, f"{last_seq} {pace.writes} {pace.pauses}\n".encode())
        time.sleep(0.001)


def serve() -> None:
    """For each path on standard input fork a driver; print its process id."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for line in sys.stdin:
        path = Path(line.strip())
        child = os.fork()
        if child == 0:
            tell = os.open(path.with_suffix(".told"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            try:
                fleet_without_end(path, tell)
            finally:
                os._exit(1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os.waitpid(child, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
