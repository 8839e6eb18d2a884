"""Where a fleet goes on real raylets: whole slices beside half ones, and a lost slice that is whole again.

1. A fleet of one slice comes up, again and again, on a cluster where every slice is whole, and then beside two slices
   of which a host is missing. Each of the latter may take 2 s more than the former do in the middle.
2. A host of a slice in use is killed, and another joins in its place while its neighbour lives on. From when the node
   table shows the place whole until the fleet is on it again, at most two reads of the table and the time of a
   reservation may pass.

Prints `fleet.places()` after each. `--check` fails if a bound is broken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import ray
from _cluster import POD, quiet_cluster, wait_until
from _rows import show

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.testing.virtual.cluster import VirtualCluster

ROUNDS = 20
MORE_S = 2.0
#: What Ray takes to place a group that fits, generously, on a busy machine.
RESERVE_S = 1.0


def bring_up(rounds: int, whole: str) -> tuple[list[float], str]:
    """Return how long fleets of one slice take until they are ready, and what the last one says of places."""
    took, places = [], ""
    for _ in range(rounds):
        begun = time.monotonic()
        with SliceController(TpuSlice(POD)) as fleet:
            fleet.wait_ready(timeout_s=60)
            took.append(time.monotonic() - begun)
            places = str(fleet.places())
            (row,) = fleet.status().slices
            if row.place != whole:
                raise RuntimeError(f"ready on {row.place}, which is not whole")
    return took, places


def is_whole(name: str, lost: str) -> bool:
    """Whether the node table shows a place whole, with none of the nodes that were lost."""
    rows = [row for row in ray.nodes() if row["Alive"] and row["Labels"].get("ray.io/tpu-slice-name") == name]
    workers = sorted(row["Labels"]["ray.io/tpu-worker-id"] for row in rows)
    return workers == ["0", "1"] and lost not in {row["NodeID"] for row in rows}


def take_again(cluster: VirtualCluster) -> tuple[float, float, str]:
    """Return after how many seconds a place that is whole again is taken, how often it is looked at, and the places."""
    slice_ = next(slice_ for slice_ in cluster.slices if len(slice_.hosts) == 2)
    settings = Settings(avoid_lost_s=3600.0)
    with SliceController(TpuSlice(POD), settings=settings) as fleet:
        fleet.wait_ready(timeout_s=60)
        lost = slice_.hosts[1]
        cluster.kill_host(lost)
        wait_until(lambda: not fleet.status().ready, "the loss")
        cluster.add_host(slice_, 1)
        wait_until(lambda: is_whole(slice_.name, lost.node_id), "the place is whole")
        begun = time.monotonic()
        wait_until(lambda: any(row.place == slice_.name for row in _alive(fleet)), "the place is taken")
        took_s = time.monotonic() - begun
        fleet.wait_ready(timeout_s=60)
        return took_s, settings.nodes_every_s, str(fleet.places())


def _alive(fleet: SliceController) -> list:
    return [row for row in fleet.status().slices if row.state in {"placed", "ready"}]


def main() -> int:
    """Measure, print, and judge if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    with quiet_cluster(1) as cluster:
        whole = cluster.slices[0].name
        bring_up(1, whole)
        alone, _ = bring_up(args.rounds, whole)
        for _ in range(2):
            cluster.add_slice(POD, missing=(1,))
        beside, places = bring_up(args.rounds, whole)
        print(places, end="\n\n")
        took_s, every_s, places_again = take_again(cluster)
        print(places_again, end="\n\n")
    usual_s = statistics.median(alone)
    late = sum(took > usual_s + MORE_S for took in beside)
    rows = [
        (f"ready, every slice whole, median of {args.rounds}", usual_s, "s", None),
        (f"ready beside two half slices, median of {args.rounds}", statistics.median(beside), "s", None),
        (f"ready beside two half slices, the slowest of {args.rounds}", max(beside), "s", usual_s + MORE_S),
        ("of these late", float(late), "", 0.0),
        ("a lost place seen whole with a new node, taken again after", took_s, "s", 2 * every_s + RESERVE_S),
    ]
    return int(not show(rows) and args.check)


if __name__ == "__main__":
    sys.exit(main())
