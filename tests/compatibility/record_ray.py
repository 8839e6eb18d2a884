"""Record a small fleet on real raylets: `python record_ray.py FILE`.

`ray.record` beside this file was made by it. When the core decides otherwise on purpose, or the form of records
changes, make it anew.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import ray

from sliceform.controller import Run, SliceController, TpuSlice
from sliceform.controller.testing import VirtualCluster


def work(seconds: float) -> float:
    """Take a while on every host."""
    time.sleep(seconds)
    return seconds


def write(path: Path) -> None:
    """Lose a host under a run, let a run fail, cancel one, and change what is wanted."""
    with VirtualCluster() as cluster:
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.add_slices(["v4-16"] * 3)
        with SliceController(TpuSlice("v4-16"), 2, spares=1, record=path) as fleet:
            fleet.wait_ready(2, timeout_s=60.0)
            interrupted = fleet.submit(work, 3.0)
            _await(interrupted, "running")
            place = next(row.place for row in fleet.status().slices if row.attempt is not None)
            cluster.kill_host(next(row for row in cluster.slices if row.name == place).hosts[1])
            interrupted.result(timeout_s=60.0)
            fleet.options(slices=1, env={"TOKEN": "s3cret"}).submit(int, "one").wait(30.0)
            cancelled = fleet.options(slices=1).submit(work, 60.0)
            _await(cancelled, "running")
            cancelled.cancel(0.0)
            cancelled.wait(30.0)
            fleet.avoid("rack-z", 60.0, "odd")
            fleet.scale(1, spares=0)


def _await(run: Run, state: str) -> None:
    end = time.monotonic() + 60.0
    while run.status().state != state:
        assert time.monotonic() < end, run.status().detail
        time.sleep(0.1)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
