"""Whether two attempts of a run ever execute user code at a time, when a host stands still or dies in part.

Every injection is a run of its own on a slice of one host; several go on at a time. The function writes down the time
every 10 ms, so an overlap is seen by its own account: all processes are on one machine, with one clock. Kinds:

    raylet-killed   the raylet alone killed
    raylet-stopped  the raylet alone stopped (SIGSTOP)
    stopped         all processes of the host stopped, woken after 15 s
    fenced          the same, woken 5 s after the fence has passed: the next attempt works by then, and the
                    old one may go on for at most 0.5 s

`--check` fails if a bound is broken.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from _cluster import quiet, wait_until
from _rows import Row, show

from sliceform.controller import CpuSlice, Run, Settings, SliceController
from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualHost

#: From the stop to the waking of a host, beyond the fence for the last kind, seconds.
WOKEN_S, BEYOND_S = 15.0, 5.0
#: How long the old attempt may go on beside the next one, seconds.
OVERLAP_S = {"raylet-killed": 0.0, "raylet-stopped": 0.0, "stopped": 0.0, "fenced": 0.5}


def work(folder: str) -> None:
    """Write down the time every 10 ms, in a file per attempt."""
    from sliceform.controller import host_context

    with Path(folder, str(host_context().attempt)).open("ab", buffering=0) as file:
        while True:
            file.write(struct.pack("d", time.time()))
            time.sleep(0.01)


@dataclass
class Case:
    """One fleet with one run, and what is done to its host."""

    fleet: SliceController[None]
    run: Run
    folder: Path
    host: VirtualHost
    at: float = 0.0
    woken: float = 0.0

    def stamps(self, attempt: int) -> list[float]:
        """When an attempt executed the function, epoch seconds."""
        with contextlib.suppress(FileNotFoundError):
            data = Path(self.folder, str(attempt)).read_bytes()
            return list(array.array("d", data[: len(data) // 8 * 8]))
        return []

    def overlap_s(self) -> float:
        """How long the first attempt went on while the second one did; a host that was woken, from then on."""
        begin = max(self.stamps(2)[0], self.woken)
        return max(0.0, self.stamps(1)[-1] - begin)

    def fenced(self) -> set[str]:
        """How the history says that the host became clear, if not by its own word."""
        return {change.reason for change in self.fleet.history if change.reason in {"host_died", "fenced_by_time"}}


@contextlib.contextmanager
def cases(cluster: VirtualCluster, count: int) -> Iterator[list[Case]]:
    """So many fleets of one slice, each with a run that works."""
    with contextlib.ExitStack() as stack:
        fleets = [SliceController(CpuSlice(1), 1, settings=Settings()).start() for _ in range(count)]
        for fleet in fleets:
            stack.callback(fleet.close, 0.0)
        made = []
        for fleet in fleets:
            row = fleet.wait_ready(1, timeout_s=120).slices[0]
            host = next(host for host in cluster.hosts if host.node_id == row.hosts[0].node_id)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            made.append(Case(fleet, fleet.submit(work, str(folder)), folder, host))
        for case in made:
            wait_until(lambda case=case: case.stamps(1), "the first attempt", 120)
        time.sleep(2 * Settings().beat_s)
        yield made
        for case in made:
            case.run.cancel(0)


def batch(cluster: VirtualCluster, kind: str, count: int) -> list[tuple[float, float, set[str]]]:
    """Do it to so many hosts at a time; return the overlaps, how long the next attempts took, and what was said."""
    after_s = {"stopped": WOKEN_S, "fenced": Settings().effective_fence_s + BEYOND_S}.get(kind)
    with cases(cluster, count) as made:
        for case in made:
            case.at = time.time()
            if kind == "raylet-killed":
                cluster.kill_host(case.host, raylet_only=True)
            else:
                cluster.freeze_host(case.host, raylet_only=kind == "raylet-stopped")
        for case in made:
            if after_s is not None:
                time.sleep(max(0.0, case.at + after_s - time.time()))
                case.woken = time.time()
                cluster.thaw_host(case.host)
        for case in made:
            wait_until(lambda case=case: case.stamps(2), "the next attempt", 90)
        time.sleep(2.0)
        found = [(case.overlap_s(), case.stamps(2)[0] - case.at, case.fenced()) for case in made]
        if kind == "raylet-stopped":
            for case in made:
                cluster.thaw_host(case.host)
    if kind == "raylet-killed":
        for case in made:
            cluster.kill_host(case.host)
        cluster.add_hosts(count, cpus=1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--injections", type=int, default=20, help="of each kind")
    parser.add_argument("--at-a-time", type=int, default=7)
    parser.add_argument("--kinds", nargs="*", default=list(OVERLAP_S), choices=list(OVERLAP_S))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    quiet()
    rows: list[Row] = []
    with VirtualCluster(head_cpus=0) as cluster:
        cluster.add_hosts(2 * min(options.at_a_time, options.injections), cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        for kind in options.kinds:
            found = []
            while (left := options.injections - len(found)) > 0:
                found += batch(cluster, kind, min(left, options.at_a_time))
            overlaps = [overlap for overlap, _, _ in found]
            rows += [
                (
                    f"{kind}: {len(found)} injections, of which two attempts overlap in",
                    sum(o > 0 for o in overlaps),
                    "",
                    len(found) if OVERLAP_S[kind] else 0,
                ),
                (f"{kind}: longest overlap", max(overlaps), "s", OVERLAP_S[kind]),
                (f"{kind}: until the next attempt, median", statistics.median(w for _, w, _ in found), "s", None),
                *(
                    (f"{kind}: the history says {code}", sum(code in said for _, _, said in found), "", None)
                    for code in ("host_died", "fenced_by_time")
                ),
            ]
            if kind == "fenced":
                rows.append(
                    (
                        "fenced: not said to be fenced by time",
                        sum("fenced_by_time" not in s for _, _, s in found),
                        "",
                        0,
                    )
                )
        ray.shutdown()
    return int(not show(rows) and options.check)


if __name__ == "__main__":
    sys.exit(main())
