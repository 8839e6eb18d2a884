"""How fast a timeline of 1,000 slices and 100,000 changes is made and moves, and how large it is.

No Ray: a simulated fleet of slices of ten hosts loses slices until its journal holds so many changes. The command is
run as a person would run it, start of the interpreter included. With Chromium on PATH the page is opened, too.
`--check` fails if a bound is broken.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import structlog
from _rows import Row, show

from sliceform.controller.api.controller import SliceController
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import GpuSlice
from sliceform.controller.testing import FakeClock, SimBackend

CHANGES = 100_000
SHAPE = GpuSlice(10, 4)
SLICES = 1000
#: Slices lost at once.
LOSSES = 20
ROUNDS = 3
#: The command may take so long, s, and its page be so large, MB.
MAKE_BOUND, SIZE_BOUND = 3.0, 10.0
_SLICEFORM = [sys.executable, "-c", "import sys; from sliceform.controller.cli import main; sys.exit(main())"]


def fill(path: Path) -> int:
    """Write the journal; return how many changes it has."""
    clock = FakeClock()
    sim = SimBackend(SHAPE, SLICES + LOSSES, clock=clock)
    settings = Settings(avoid_lost_s=0.0, quarantine_after=10_000, history_limit=2 * CHANGES)
    fleet = SliceController(SHAPE, SLICES, settings=settings, backend=sim, clock=clock, journal=path)
    fleet.wait_ready(SLICES)
    choose = random.Random(0)
    while fleet.history.last_seq < CHANGES:
        for place in choose.sample(sim.places, LOSSES):
            sim.remove_slice(place)
            sim.restore_slice(place)
        for _ in range(4):
            clock.advance(5.0)
            fleet.step()
    changes = fleet.history.last_seq
    fleet.close()
    return changes


def make(journal: Path, target: Path) -> tuple[float, float]:
    """Return how long the command took, s (median), and how large what it wrote is, MB."""
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        subprocess.run([*_SLICEFORM, "timeline", journal, "-o", target], check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - begin)
    return statistics.median(took), target.stat().st_size / 1e6


def move(page: Path) -> tuple[float, float] | None:
    """Return how long the page takes to open, s, and to draw one picture while it moves, ms; None without Chromium."""
    found = shutil.which("chromium")
    if found is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(viewport={"width": 1400, "height": 900})
        begin = time.perf_counter()
        window.goto(page.as_uri())
        window.wait_for_function("() => window.sliceform !== undefined")
        opened = time.perf_counter() - begin
        drawing = """() => {
            const begin = performance.now();
            for (let step = 0; step < 50; step += 1) { view.scroll += 40; view.move(0.001); draw(); }
            return (performance.now() - begin) / 50;
        }"""
        drawn = float(window.evaluate(drawing))
        browser.close()
    return opened, drawn


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a bound is broken")
    check = parser.parse_args().check
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="sliceform-bench-") as name:
        journal, page = Path(name) / "fleet.db", Path(name) / "fleet.html"
        changes = fill(journal)
        took, size = make(journal, page)
        seen = move(page)
    rows: list[Row] = [
        (f"the page of {changes:,} changes made by the command", took, "s", MAKE_BOUND),
        ("its size", size, "MB", SIZE_BOUND),
    ]
    if seen is None:
        print("no Chromium on PATH: the page is not opened", file=sys.stderr)
    else:
        rows += [("opened in Chromium", seen[0], "s", None), ("one picture while it moves", seen[1], "ms", None)]
    return int(not show(rows) and check)


if __name__ == "__main__":
    sys.exit(main())
