"""What a journal costs the loop, and how fast it answers when it holds 100,000 changes.

No Ray: a busy simulated fleet is ticked by hand, with and without a journal in turns, and the CPU time of the loop's
thread is compared; what the simulator itself takes is in both. `--check` fails if a bound is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from _rows import show

from sliceform.controller.api.controller import SliceController
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.journal import Journal, open_journal
from sliceform.controller.follow.journal.tally import Wish
from sliceform.controller.follow.journal.writer import JournalWriter
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import GpuSlice
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import History, Story

CHANGES = 100_000
SHAPE = GpuSlice(10, 4)
SLICES = 50
LOSSES = 60
ROUNDS = 7
#: Fleets that are created in one tick, so many times each: one for which the bound on the delay holds, and a large one.
COLD, LARGE, COLD_STARTS = 450, 1000, 5
#: What a change may cost on the loop's thread with a journal, times what it costs without.
COST_BOUND = 1.2
#: A change is in the file so long after its tick, ms.
DELAY_BOUND = 100.0
STORY_BOUND, AT_BOUND = 10.0, 50.0
#: A file is filled with so many slices alive at a time, in batches of so many changes.
ALIVE, BATCH = 40, 2000
#: The same with 10,000 states of slices and hosts.
MANY_ALIVE, LARGE_BATCH = 3334, 100_000


def busy(path: Path | None) -> tuple[float, int]:
    """Let a fleet lose slice after slice; return what a change took the loop's thread, µs, and how many there were."""
    clock = FakeClock()
    sim = SimBackend(SHAPE, SLICES, clock=clock)
    settings = Settings(avoid_lost_s=0.0, quarantine_after=10_000)
    fleet = SliceController(SHAPE, SLICES, settings=settings, backend=sim, clock=clock, journal=path)
    fleet.wait_ready(SLICES)
    before, begin = fleet.history.last_seq, time.thread_time()
    for number in range(LOSSES):
        place = sim.places[number % SLICES]
        sim.remove_slice(place)
        for _ in range(4):
            clock.advance(0.5)
            fleet.step()
        sim.restore_slice(place)
        for _ in range(4):
            clock.advance(0.5)
            fleet.step()
            time.sleep(0.002)  # the follower gets its turn, as it would while the loop waits
    took, changes = time.thread_time() - begin, fleet.history.last_seq - before
    fleet.close()
    return took / changes * 1e6, changes


def cost(folder: Path) -> tuple[float, float, int]:
    """Return what a change costs without and with a journal, µs (medians of rounds in turns), and their number."""
    busy(None)
    plain, kept, changes = [], [], 0
    for number in range(ROUNDS):
        plain.append(busy(None)[0])
        took, changes = busy(folder / f"cost-{number}.db")
        kept.append(took)
    return statistics.median(plain), statistics.median(kept), changes


def delay(folder: Path) -> float:
    """Return how long after its tick a change was in the file at worst, ms, over a busy second."""
    clock = FakeClock()
    sim = SimBackend(SHAPE, SLICES, clock=clock)
    fleet = SliceController(SHAPE, SLICES, backend=sim, clock=clock, journal=folder / "delay.db")
    fleet.wait_ready(SLICES)
    worst = 0.0
    with open_journal(folder / "delay.db") as journal:
        for number in range(20):
            sim.kill_host(sim.places[number], 0)
            clock.advance(0.5)
            fleet.step()
            begin = time.perf_counter()
            while journal.last_seq < fleet.history.last_seq:
                time.sleep(0.001)
            worst = max(worst, time.perf_counter() - begin)
    fleet.close()
    return worst * 1e3


def delay_of_all(folder: Path, slices: int) -> tuple[float, int]:
    """Return how long after the tick that created a fleet all of it was in the file at worst, ms, and its changes."""
    worst, changes = 0.0, 0
    for number in range(COLD_STARTS):
        path = folder / f"cold-{slices}-{number}.db"
        clock = FakeClock()
        sim = SimBackend(SHAPE, slices, clock=clock)
        fleet = SliceController(SHAPE, slices, backend=sim, clock=clock, journal=path)
        fleet.step()
        begin = time.perf_counter()
        changes = fleet.history.last_seq
        with open_journal(path) as journal:
            while journal.last_seq < changes:
                time.sleep(0.001)
        worst = max(worst, time.perf_counter() - begin)
        fleet.close()
    return worst * 1e3, changes


@contextlib.contextmanager
def filled(path: Path, alive: int, batch: int) -> Iterator[tuple[Journal, int]]:
    """Fill a journal with lives of slices of two hosts, so many at a time; give it, and the number of slices."""
    history = History(2 * CHANGES)
    writer = JournalWriter(path, history, limit=10 * CHANGES, wish=lambda: Wish(0.0, (alive,), 0))
    writer.open("bench", "0", "shape", 0.0)
    number, written = 0, 0
    while history.last_seq < CHANGES:
        number += 1
        live(history, number, alive)
        if history.last_seq - written >= batch:
            writer.write(Batch(Story(history.since(written)), (), 0))
            written = history.last_seq
    writer.write(Batch(Story(history.since(written)), (), 0))
    with open_journal(path) as journal:
        yield journal, number
    writer.close(0.0)


def live(history: History, number: int, alive: int) -> None:
    """Let one slice come, and the one that came so many before it go."""
    at = float(number)
    for name, steps in ((number, _COMING), (number - alive, _GOING)):
        if name < 1:
            continue
        for trigger, source, dest in steps:
            for key, kind in ((f"slice-{name}", "slice"), *((f"slice-{name}/{rank}", "host") for rank in (0, 1))):
                history.append(
                    tick=number, at=at, kind=kind, key=key, trigger=trigger, source=source, dest=dest, reason="desired"
                )


_COMING = (("create", None, "pending"), ("place", "pending", "placed"), ("prepare", "placed", "ready"))
_GOING = (("drain", "ready", "draining"), ("release", "draining", None))


def slowest(ask: Callable[[int], object], slices: int) -> float:
    """Return the slowest of some answers from all over the file, ms; each is the best of three."""
    worst = 0.0
    for number in range(1, slices, slices // 20):
        took = []
        for _ in range(3):
            begin = time.perf_counter()
            ask(number)
            took.append(time.perf_counter() - begin)
        worst = max(worst, min(took))
    return worst * 1e3


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a bound is broken")
    check = parser.parse_args().check
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING), cache_logger_on_first_use=True
    )
    with tempfile.TemporaryDirectory(prefix="sliceform-bench-") as name:
        folder = Path(name)
        plain, kept, changes = cost(folder)
        worst = delay(folder)
        cold, cold_size = delay_of_all(folder, COLD)
        large, large_size = delay_of_all(folder, LARGE)
        with filled(folder / "filled.db", ALIVE, BATCH) as (journal, slices):
            story = slowest(lambda number: journal.story(f"slice-{number}"), slices)
            at = slowest(lambda number: journal.at(float(number)), slices)
            size = (folder / "filled.db").stat().st_size / len(journal)
        with filled(folder / "many.db", MANY_ALIVE, LARGE_BATCH) as (journal, slices):
            at_many = slowest(lambda number: journal.at(float(number)), slices)
    rows = [
        (f"a change on the loop's thread, of {changes}, without a journal", plain, "us", None),
        ("the same with a journal", kept, "us", None),
        ("with a journal / without", kept / plain, "x", COST_BOUND),
        ("in the file after its tick, worst of 20", worst, "ms", DELAY_BOUND),
        (f"the last of a tick of {cold_size:,} changes, worst of {COLD_STARTS}", cold, "ms", DELAY_BOUND),
        (f"the last of a tick of {large_size:,} changes, worst of {COLD_STARTS}", large, "ms", None),
        (f"story of a slice among {CHANGES:,} changes, worst of 20", story, "ms", STORY_BOUND),
        (f"states at a time among {CHANGES:,} changes, worst of 20", at, "ms", AT_BOUND),
        ("the same with 10,000 records alive, written in one batch", at_many, "ms", AT_BOUND),
        ("bytes of the file for a change", size, "B", None),
    ]
    return int(not show(rows) and check)


if __name__ == "__main__":
    sys.exit(main())
