"""How often the node table of a large or slow cluster is read, and whether the fleet is ever blind for it.

No Ray: `ray.nodes` is replaced by a table of 10,000 rows that are made anew on each read, as Ray does, after a wait for
the cluster's answer. Reader, loop and clock are the real ones. Takes about two minutes; `--check` fails if a bound is
broken.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ray
import structlog
from _rows import Row, show

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.model.backend import FleetIdentity, Sink
from sliceform.controller.model.clock import SystemClock
from sliceform.controller.model.events import NodesSeen, ObservationFailed
from sliceform.controller.ray_backend import private
from sliceform.controller.ray_backend.nodes import NodeReader
from sliceform.controller.testing import SimBackend

NODES = 10_000
HOSTS_PER_SLICE = 8
#: For so long the steady cases are watched; and so long does the cluster not answer in the others, seconds.
WATCHED_S = 30.0
STALLS_S = (2.0, 20.0)


class Read(SimBackend):
    """A cluster without places, whose node table is read by Ray's reader."""

    def open(self, fleet: FleetIdentity, sink: Sink) -> None:
        super().open(fleet, sink)
        self._next_read = float("inf")
        self.looks: list[float] = []
        self._reader = NodeReader(fleet.settings.nodes_every_s, lambda: None, self._looked)
        self._reader.start()

    def _looked(self, event: NodesSeen | ObservationFailed) -> None:
        self.looks.append(time.monotonic())
        sink = self._sink
        if sink is not None:
            sink.post(event)

    def close(self) -> None:
        self._reader.stop(60.0)
        super().close()


def table(answer_s: Callable[[], float]) -> Callable[[], list[dict[str, Any]]]:
    """Return what stands for `ray.nodes`: it waits, then makes all rows."""

    def nodes() -> list[dict[str, Any]]:
        time.sleep(answer_s())
        return [node(number) for number in range(NODES)]

    return nodes


def node(number: int) -> dict[str, Any]:
    place, worker = divmod(number, HOSTS_PER_SLICE)
    node_id = f"{number:056x}"
    return {
        "NodeID": node_id,
        "Alive": True,
        "NodeManagerAddress": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        "NodeManagerPort": 6_000,
        "Resources": {"CPU": 8.0, "TPU": 4.0, "memory": 6.4e10, f"node:{node_id}": 1.0},
        "Labels": {
            "ray.io/node-id": node_id,
            "ray.io/tpu-slice-name": f"slice-{place}",
            "ray.io/tpu-worker-id": str(worker),
            "ray.io/tpu-pod-type": "v4-64",
        },
    }


def watch(answer_s: Callable[[], float], seconds: float) -> tuple[list[float], int, int]:
    """Watch a fleet for a while; return when the table was read, ticks, and those of them that were blind."""
    ray.nodes = table(answer_s)
    private.draining_nodes = dict
    backend = Read(TpuSlice("v4-64"), 0, clock=SystemClock())
    fleet = SliceController(TpuSlice("v4-64"), backend=backend, settings=Settings())
    loop = fleet._loop
    ticks = blind = 0
    inner = loop.tick

    def tick() -> float:
        nonlocal ticks, blind
        wait_s = inner()
        if backend.looks:
            ticks += 1
            blind += bool(loop.ledger.fleet.blind)
        return wait_s

    loop.tick = tick  # type: ignore[method-assign]
    fleet.start()
    time.sleep(seconds)
    looks = list(backend.looks)
    fleet.close(grace_s=0.0)
    return looks, ticks, blind


def steady(answer_s: float) -> list[Row]:
    looks, ticks, blind = watch(lambda: answer_s, WATCHED_S)
    what = f"{NODES:,} nodes, answered after {answer_s:g} s"
    longest = max(after - before for before, after in pairwise(looks))
    return [
        (f"{what}: longest time between looks", longest, "s", 5.0),
        (f"{what}: ticks watched", ticks, "", None),
        (f"{what}: ticks blind", blind, "", 0.0),
    ]


def stalled(stall_s: float) -> list[Row]:
    """One answer comes late, all others at once: how long after it is the next look?"""
    begin = time.monotonic()
    waits = iter([0.05, 0.05, stall_s])
    looks, _, blind = watch(lambda: next(waits, 0.05), stall_s + 12.0)
    gaps = [after - before for before, after in pairwise(looks)]
    late = gaps.index(max(gaps))
    what = f"{NODES:,} nodes, one answer {stall_s:g} s late"
    return [
        (f"{what}: next look after it", gaps[late + 1], "s", 2.0),
        (f"{what}: ticks blind, of {time.monotonic() - begin:.0f} s", blind, "", None),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a bound is broken")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    rows = [row for answer_s in (0.05, 0.6) for row in steady(answer_s)]
    rows += [row for stall_s in STALLS_S for row in stalled(stall_s)]
    return int(not show(rows) and options.check)


if __name__ == "__main__":
    sys.exit(main())
