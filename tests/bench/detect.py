"""How long a loss goes unnoticed, against raw Ray watching the same host in the same event.

Beside the fleet's own slice, a raw task and a raw actor call are open on the host that is lost; each case is one event
that both see. Times come from one clock on one machine. Cases:

    run     all processes of a host killed while a run is on it      preempt at most 50 ms after the raw task fails
    idle    the same without a run                                   at most 50 ms after the raw actor call fails
    raylet  the raylet alone killed                                  at most the effective silence + 1 s
    stopped the raylet alone stopped (SIGSTOP)                       the same
    frozen  raylet and workers stopped                               the same
    busy    a run burns every core for 60 s                          not taken for lost

`--check` fails if a bound is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import ray
from _cluster import POD, quiet_cluster, wait_until
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualHost

SOON_S = 0.050


@ray.remote(num_cpus=0, max_retries=0)
def sleep_long() -> None:
    time.sleep(3600)


@ray.remote(num_cpus=0)
class Open:
    def ping(self) -> int:
        return 1

    def wait(self) -> None:
        time.sleep(3600)


class Raw:
    """A raw task and a raw actor call on one node, and the times at which they fail."""

    def __init__(self, node_id: str) -> None:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        self.failed: dict[str, float] = {}
        self._actor = Open.options(scheduling_strategy=strategy).remote()
        ray.get(self._actor.ping.remote(), timeout=30)
        self._refs = {
            "task": sleep_long.options(scheduling_strategy=strategy).remote(),
            "actor": self._actor.wait.remote(),
        }
        for name, ref in self._refs.items():
            ref.future().add_done_callback(lambda _, name=name: self.failed.setdefault(name, time.time()))

    def close(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor)
            ray.cancel(self._refs["task"], force=True)


def burn(seconds: float) -> None:
    """Keep every core busy from this host."""
    import multiprocessing

    def spin() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(10_000))

    children = [multiprocessing.get_context("fork").Process(target=spin) for _ in range(os.cpu_count() or 1)]
    for child in children:
        child.start()
    for child in children:
        child.join()


def hold() -> None:
    time.sleep(3600)


def lose(cluster: VirtualCluster, case: str, host: VirtualHost) -> None:
    if case in {"run", "idle"}:
        cluster.kill_host(host)
    elif case == "raylet":
        cluster.kill_host(host, raylet_only=True)
    else:
        cluster.freeze_host(host, raylet_only=case == "stopped")


def one(cluster: VirtualCluster, case: str) -> dict[str, float]:
    """One event: return the seconds from the fault to `preempt`, to the raw signals, and on to the replacement."""
    with SliceController(TpuSlice(POD), 1) as fleet:
        victim = fleet.wait_ready(1, timeout_s=60).slices[0]
        broken = next(row for row in cluster.slices if row.name == victim.place)
        host = broken.hosts[1]
        raw = Raw(host.node_id)
        run = None
        if case == "run":
            run = fleet.submit(hold)
            wait_until(
                lambda: [row.state for row in fleet.status().slices[0].hosts] == ["running"] * 2, "the run to start"
            )
        silence_s = fleet.status().effective_silence_s
        at = time.time()
        lose(cluster, case, host)
        wait_until(lambda: fleet.status().ready == 1 and fleet.status().slices[-1].id != victim.id, "replacement", 120)
        story = fleet.history.story(victim.id)
        preempt = next(change.at for change in story if change.trigger == "preempt")
        after = next(
            change
            for change in fleet.history
            if change.trigger == "prepare" and change.at > preempt and change.kind == "slice"
        )
        if case in {"run", "idle"}:
            wait_until(lambda: len(raw.failed) == 2, "the raw signals", 90)
        signals = {f"raw_{name}_s": when - at for name, when in list(raw.failed.items())}
        raw.close()
        if run is not None:
            run.cancel(0)
            run.wait(30)
    cluster.kill_host(host)
    cluster.remove_slice(broken)
    cluster.add_slice(POD)
    return {"preempt_s": preempt - at, "replace_s": after.at - preempt, "silence_s": silence_s, **signals}


def busy(cluster: VirtualCluster) -> dict[str, float]:
    """A run that burns every core for a minute: return how often a slice was preempted meanwhile."""
    with SliceController(TpuSlice(POD), 1) as fleet:
        fleet.wait_ready(1, timeout_s=60)
        fleet.run(burn, 60.0)
        losses = sum(change.trigger == "preempt" for change in fleet.history)
    return {"preemptions": losses}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", default=["run", "idle", "raylet", "stopped", "frozen", "busy"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    broken = False
    with quiet_cluster(3) as cluster:
        for case in options.cases:
            rows = [busy(cluster)] if case == "busy" else [one(cluster, case) for _ in range(options.rounds)]
            found[case] = rows
            if case == "busy":
                ok = rows[0]["preemptions"] == 0
                print(f"{case:<8} {rows[0]['preemptions']:.0f} preemptions  {'ok' if ok else 'OVER'}")
            else:
                preempt = statistics.median(row["preempt_s"] for row in rows)
                replace = statistics.median(row["replace_s"] for row in rows)
                text = f"{case:<8} preempt after {preempt:7.3f} s, replaced {replace:6.3f} s later"
                if case in {"run", "idle"}:
                    signal = "raw_task_s" if case == "run" else "raw_actor_s"
                    later = statistics.median(row["preempt_s"] - row[signal] for row in rows)
                    raw = statistics.median(row[signal] for row in rows)
                    ok = later <= SOON_S
                    text += f"; {1000 * later:6.1f} ms after the raw signal (at {raw:.3f} s; bound 50 ms)"
                else:
                    bound = rows[0]["silence_s"] + 1.0
                    ok = preempt <= bound
                    text += f"; bound {bound:.1f} s"
                print(f"{text}  {'ok' if ok else 'OVER'}")
            broken = broken or not ok
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return int(options.check and broken)


if __name__ == "__main__":
    sys.exit(main())
