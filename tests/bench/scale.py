"""Time from start to all slices ready, against raw Ray doing the same work in the same run.

The floor: one placement group per slice, one empty actor per host, one call to each, all issued at once. The two are
interleaved in changing order; before each, the idle workers of every host are brought to the stated number, because
starting a Python worker is what most of the time goes to. Bound: at most 0.15 x floor + 60 ms more, as the median of
paired differences. `grow` measures 2 -> 4 slices against the floor for 2. `--check` fails if a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from _cluster import POD, bootstrap_interval, quiet_cluster, set_idle_workers, wait_until
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.testing.virtual.cluster import VirtualCluster

HOSTS = 2


class Empty:
    """The least that an agent could be."""

    def ping(self) -> int:
        return 1


def floor(places: list[str]) -> float:
    """Raw Ray: return the seconds until an actor on every host of these slices has answered."""
    actor = ray.remote(num_cpus=0)(Empty)
    start = time.perf_counter()
    groups, answers = [], []
    for place in places:
        selectors = [{"ray.io/tpu-slice-name": place, "ray.io/tpu-worker-id": str(rank)} for rank in range(HOSTS)]
        group = placement_group([{"CPU": 1, "TPU": 4}] * HOSTS, bundle_label_selector=selectors)
        groups.append(group)
        for rank in range(HOSTS):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            answers.append(actor.options(scheduling_strategy=strategy).remote().ping.remote())
    ray.get(answers, timeout=60)
    took = time.perf_counter() - start
    del answers
    for group in groups:
        remove_placement_group(group)
    removed()
    return took


def removed() -> None:
    """Wait until no group is left, so that the next measurement finds the cluster free."""
    wait_until(lambda: all(table["state"] == "REMOVED" for table in placement_group_table().values()), "groups removed")


def ours(slices: int) -> float:
    """A fleet: return the seconds from start to all ready."""
    fleet = SliceController(TpuSlice(POD), slices)
    start = time.perf_counter()
    try:
        fleet.start().wait_ready(slices, timeout_s=60)
        return time.perf_counter() - start
    finally:
        fleet.close()
        removed()


def ours_growing(cluster: VirtualCluster, idle: int, scratch: Path) -> float:
    """A fleet of two that grows to four: return the seconds from `scale` to all ready."""
    with SliceController(TpuSlice(POD), 2) as fleet:
        fleet.wait_ready(2, timeout_s=60)
        set_idle_workers(cluster, idle, scratch)
        start = time.perf_counter()
        fleet.scale(4)
        fleet.wait_ready(4, timeout_s=60)
        took = time.perf_counter() - start
    removed()
    return took


def measure(  # noqa: PLR0917 - called in two places
    cluster: VirtualCluster, name: str, pairs: int, idle: int, raw: Callable[[], float], fleet: Callable[[], float]
) -> dict[str, Any]:
    """Run pairs in changing order; return the row of the table."""
    rng = random.Random(1)
    floors, totals = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(pairs + 1):
            first = rng.random() < 0.5
            took = {}
            for kind in ("raw", "fleet") if first else ("fleet", "raw"):
                set_idle_workers(cluster, idle, Path(scratch))
                took[kind] = raw() if kind == "raw" else fleet()
            if number:  # the first pair warms up
                floors.append(took["raw"])
                totals.append(took["fleet"])
            print(f"  {name} idle={idle} {number}/{pairs}: floor {took['raw']:.3f} s, ours {took['fleet']:.3f} s")
    differences = [total - base for total, base in zip(totals, floors, strict=True)]
    base = statistics.median(floors)
    low, high = bootstrap_interval(differences)
    return {
        "what": name,
        "idle": idle,
        "pairs": pairs,
        "floor_s": base,
        "ours_s": statistics.median(totals),
        "more_s": statistics.median(differences),
        "more_95_s": [low, high],
        "bound_s": 0.15 * base + 0.060,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--idle", type=int, nargs="*", default=[0, 3])
    parser.add_argument("--no-grow", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    rows = []
    with quiet_cluster(4) as cluster, tempfile.TemporaryDirectory() as scratch:
        places = [row.name for row in cluster.slices]
        for idle in options.idle:
            rows += [
                measure(
                    cluster,
                    f"0 -> {size}",
                    options.pairs,
                    idle,
                    lambda size=size: floor(places[:size]),
                    lambda size=size: ours(size),
                )
                for size in options.sizes
            ]
            if not options.no_grow:
                rows.append(
                    measure(
                        cluster,
                        "2 -> 4",
                        options.pairs,
                        idle,
                        lambda: floor(places[:2]),
                        lambda idle=idle: ours_growing(cluster, idle, Path(scratch)),
                    )
                )
    print(f"\n{'slices':<8}{'idle':>5}{'floor s':>9}{'ours s':>9}{'more s':>9}  {'95 % of more':<18}{'bound s':>9}")
    for row in rows:
        low, high = row["more_95_s"]
        verdict = "ok" if row["more_s"] <= row["bound_s"] else "OVER"
        print(
            f"{row['what']:<8}{row['idle']:>5}{row['floor_s']:>9.3f}{row['ours_s']:>9.3f}{row['more_s']:>9.3f}"
            f"  {low:>7.3f} .. {high:<7.3f}{row['bound_s']:>9.3f}  {verdict}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return int(options.check and any(row["more_s"] > row["bound_s"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
