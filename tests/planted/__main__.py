"""Plant faults and report which are found: `python -m tests.planted --seed 0 --count 60`; 1 if too few are."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from .draw import draw, population
from .explained import EXPLAINED
from .judge import Grounds, Verdict
from .source import Plant

#: The least share of what can be found that has to be.
LEAST = 0.95
_ROOT = Path(__file__).parents[2]


class Judged(NamedTuple):
    """A change, and what became of it."""

    plant: Plant
    verdict: Verdict
    #: Why nothing can find it; empty if that is not said.
    why: str

    @property
    def counts(self) -> bool:
        """Whether it is one of those that can be found."""
        return bool(self.verdict.found_by) or not self.why

    def __str__(self) -> str:
        """Say it in a line."""
        found_by, seconds, way = self.verdict
        if found_by:
            outcome = f"found by {found_by}{f' ({way})' if way else ''}"
        else:
            outcome = f"explained: {self.why}" if self.why else "SURVIVED"
        return f"{self.plant}\n    {outcome}, {seconds:.1f} s"


def judge_all(root: Path, plants: list[Plant], jobs: int) -> list[Judged]:
    """Judge them on copies of the tree, one for each job, and print each as it is known."""
    reasons = {each[:-1]: each.why for each in EXPLAINED}
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        free: Queue[Grounds] = Queue()
        for _ in range(jobs):
            free.put(Grounds(root, Path(folder)))
        grounds = free.get()
        runs = grounds.map()
        free.put(grounds)

        def judged(plant: Plant) -> Judged:
            mine = free.get()
            try:
                return Judged(plant, mine.judge(plant, runs), reasons.get(plant.code, ""))
            finally:
                free.put(mine)

        done: list[Judged] = []
        with ThreadPoolExecutor(jobs) as pool:
            for each in pool.map(judged, plants):
                done.append(each)
                print(f"{len(done):3} {each}", flush=True)
    return done


def report(done: list[Judged]) -> float:
    """Print what became of all of them, and return the share of those found among those that can be."""
    found = [each for each in done if each.verdict.found_by]
    counted = [each for each in done if each.counts]
    ways = Counter(each.verdict.way for each in found)
    share = len(found) / max(1, len(counted))
    print(
        f"{len(done)} planted, {len(found)} found, {len(done) - len(counted)} explained, "
        f"{len(counted) - len(found)} survived: {share:.1%} of what can be found"
    )
    print(f"of those found, {ways['import']} let no test be imported, {ways['time']} made one take too long")
    return share


def main(argv: list[str] | None = None) -> int:
    """Draw, judge and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1, help="copies on which tests run at once")
    asked = parser.parse_args(argv)
    begun = time.monotonic()
    places = population(_ROOT)
    for kind, found in places.items():
        print(f"{kind}: {len(found)} places, {sum(map(len, found))} changes")
    codes = {plant.code for place in chain.from_iterable(places.values()) for plant in place}
    for each in EXPLAINED:
        if each[:-1] not in codes:
            print(f"explained, but not there any more: {each.path} ({each.inside})  {each.before}  ->  {each.after}")
    plants = [plant for _, plant in draw(places, asked.seed, asked.count)]
    share = report(judge_all(_ROOT, plants, asked.jobs))
    print(f"seed {asked.seed}, {time.monotonic() - begun:.0f} s")
    return int(share < LEAST)


if __name__ == "__main__":
    sys.exit(main())
