"""What a fleet keeps of what is gone: memory, references and file descriptors over many lives of slices.

`sim`: 100,000 lives on a simulated cluster, each with a run whose result is fetched, beside one run that is preempted
with every slice of its own; a few minutes. `ray`: 200 lives on Ray on this machine, a third of them with a
run; about four minutes. By default both. `--check` fails if anything grows.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import structlog

from sliceform.controller import CpuSlice, GpuSlice, Settings, SliceController
from sliceform.controller.testing import FakeClock, SimBackend

SIM_LIVES = 100_000
RAY_LIVES = 200
#: At so many points of the way the table has a row; the first is after the start, when all bounds are reached.
POINTS = 5
#: What may differ between the first row and the last: memory, MB, of which some goes to the interpreter's own pools.
MEMORY_MB = 12.0
PYTHON_MB = 1.0
#: How long anything on Ray may take, seconds.
PATIENCE_S = 60.0

#: Small bounds, so that they are reached early on.
SETTINGS = Settings(history_limit=2_000, avoid_lost_s=0.0, quarantine_s=5.0, backoff_max_s=1.0)


@dataclass(frozen=True)
class Kept:
    """What there is at one point."""

    lives: int
    memory_mb: float
    #: Of that, what Python itself allocated; only on Ray, which keeps something natively of each actor that there was.
    python_mb: float
    objects: int
    references: int
    descriptors: int
    threads: int
    #: What the controller keeps by slice, node, place, attempt and run, all together; what the backend keeps by slice.
    books: int
    backend: int

    def __str__(self) -> str:
        return (
            f"{self.lives:>8,}  {self.memory_mb:>9.1f}  {self.python_mb:>9.2f}  {self.objects:>8,}  "
            f"{self.references:>10}  {self.descriptors:>11}  {self.threads:>7}  {self.books:>5}  {self.backend:>7}"
        )


HEADER = "   lives  memory MB  python MB   objects  references  descriptors  threads  books  backend"


def kept(fleet: SliceController, backend: int, reference: type | None = None) -> Kept:
    gc.collect()
    python_mb = tracemalloc.get_traced_memory()[0] / 1e6
    objects = gc.get_objects()
    inner = fleet._ledger
    inner_fleet = inner.fleet
    books = [
        inner_fleet.lives,
        inner_fleet.runs,
        inner_fleet.vacancies,
        inner_fleet.places.avoided,
        inner_fleet.places.strikes,
        inner.users,
        inner.attempts,
        inner.released,
        inner.outbox._items,
        fleet._runs,
        *[run.attempts for run in inner_fleet.runs],
    ]
    memory_mb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Kept(
        inner_fleet.next_number - 1,
        memory_mb,
        python_mb,
        len(objects),
        0 if reference is None else sum(type(each) is reference for each in objects),
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        sum(map(len, books)),
        backend,
    )


def grows(first: Kept, last: Kept) -> list[str]:
    """Say what has grown between two points."""
    limits = {
        "memory_mb": first.memory_mb + MEMORY_MB,
        "python_mb": first.python_mb + PYTHON_MB,
        "objects": first.objects * 1.05,
        "references": first.references + 4,
        "descriptors": first.descriptors + 4,
        "threads": first.threads + 2,
        "books": first.books * 1.2 + 4,
        "backend": first.backend + 4,
    }
    return [f"{name} grew to {getattr(last, name):g}" for name, most in limits.items() if getattr(last, name) > most]


def follow(total: int, go_on: Callable[[int], None], look: Callable[[], Kept]) -> list[str]:
    """Print a row at every point; `go_on` brings the fleet to so many lives."""
    print(HEADER)
    rows = []
    for point in range(1, POINTS + 1):
        go_on(total * point // POINTS)
        rows.append(look())
        print(rows[-1], flush=True)
    return grows(rows[0], rows[-1])


def simulated(total: int) -> list[str]:
    """Machines that come with new ids, agents that die, drains, a run per round, and a run that goes on for ever."""
    clock = FakeClock()
    racks = [f"rack-{number}" for number in range(12)]
    sim = SimBackend(GpuSlice(1, 8), racks, clock=clock, work_s=1.0)
    fleet = SliceController(GpuSlice(1, 8), 10, backend=sim, clock=clock, settings=SETTINGS)

    def let(seconds: float) -> None:
        for _ in range(round(seconds / 0.5)):
            clock.advance(0.5)
            fleet.step()

    fleet.wait_ready(10)
    fleet.options(slices=2, max_preemptions=10**9, max_failures=10**9).submit(lambda: 1 / 0)

    def go_on(lives: int) -> None:
        while fleet._ledger.fleet.next_number <= lives:
            fleet.options(slices=4).submit(lambda: bytes(1_000)).result()
            for rack in racks[::3]:
                sim.kill_agent(rack, 0)
            let(0.5)
            for rack in racks:
                sim.kill_host(rack, 0)
                sim.restore_slice(rack)
            let(4.0)
            fleet.drain(fleet.status().slices[-1].id, deadline_s=0.0)
            let(2.0)

    print(f"simulated, 10 slices of 1 host, {total:,} lives")
    found = follow(total, go_on, lambda: kept(fleet, len(sim.kept)))
    fleet.close(grace_s=0.0)
    return found


def on_ray(total: int) -> list[str]:
    """Four slices on this machine, drained round after round, with a run on all of them in every third."""
    import ray

    tracemalloc.start(1)
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    found = ["it did not come to its end"]
    with SliceController(CpuSlice(1), 4, settings=SETTINGS) as fleet:
        parts = fleet._loop.backend._parts
        rounds = count()

        def go_on(lives: int) -> None:
            while fleet._ledger.fleet.next_number <= lives:
                status = fleet.wait_ready(4, timeout_s=PATIENCE_S)
                if next(rounds) % 3 == 0:
                    assert len(fleet.submit(lambda: bytes(200_000)).result(PATIENCE_S).values) == 4
                old = {row.id for row in status.slices}
                for name in old:
                    fleet.drain(name, deadline_s=0.0)
                assert fleet._drive.wait(
                    lambda status, old=old: not old & {row.id for row in status.slices}, PATIENCE_S
                )

        def look() -> Kept:
            fleet.wait_ready(4, timeout_s=PATIENCE_S)
            fleet._drive.wait(lambda status: status.effects_in_flight == 0 and len(status.slices) == 4, PATIENCE_S)
            return kept(fleet, len(parts._holdings) + len(parts._attempts._meetings), ray.ObjectRef)

        print(f"Ray, 4 slices of 1 host, {total:,} lives")
        found = follow(total, go_on, look)
    ray.shutdown()
    tracemalloc.stop()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", nargs="?", choices=["sim", "ray", "both"], default="both")
    parser.add_argument("--lives", type=int, help="so many instead, where one is chosen")
    parser.add_argument("--check", action="store_true", help="fail if anything grows")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found = []
    if options.where != "ray":
        found += simulated(options.lives or SIM_LIVES)
    if options.where != "sim":
        found += on_ray(options.lives or RAY_LIVES)
    print(f"grows: {'; '.join(found)}" if found else "nothing grows")
    return int(bool(found) and options.check)


if __name__ == "__main__":
    sys.exit(main())
