"""Drivers that are killed: each child writes a journal of a busy simulated fleet, and tells what it recorded when."""

import logging
import os
import sys
import time
from pathlib import Path

import structlog

from sliceform.controller.api import SliceController
from sliceform.controller.settings import Settings
from sliceform.controller.spec import TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend


def fleet_without_end(path: Path, tell: int) -> None:
    """Run slices to death until killed; after every tick write the number of the last change and the time to `tell`."""
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
        os.write(tell, f"{fleet.history.last_seq} {time.monotonic()}\n".encode())
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
