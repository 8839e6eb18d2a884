"""How long until the user's code runs, against raw Ray starting fresh processes on the same hosts in the same run.

    run      `run()` of a trivial function on all hosts        at most 1.25 x raw fresh-process tasks there
    kill     all processes of a host killed, one spare: until  at most 1.25 x the same in raw Ray: the earliest signal,
             the first line on every host of the next attempt  force-stop of the others, fresh processes on the spare
    notice   the same after a notice, from the end of the      at most 1.25 x fresh-process tasks on the same hosts
             last process of the first attempt

Ours and raw Ray alternate. Before each, every host has the stated number of idle workers, because to start a Python
worker is what most of the time goes to. `--check` fails if a bound is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from _cluster import POD, bootstrap_interval, quiet_cluster, set_idle_workers, wait_until
from ray._raylet import GcsClient
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualHost

HOSTS = 2
BOUND = 1.25
#: As in Ray's autoscaler.proto.
_PREEMPTION = 2


def nothing() -> None:
    """The least that a function can be."""


def mark(folder: str) -> None:
    """Note when this host came to its first line, then work until told to stop; note in which process that was."""
    from sliceform.controller import Stopped, host_context

    at = time.time()
    me = host_context()
    Path(folder, f"begun-{me.attempt}-{me.rank}").write_text(str(at))
    while not me.should_stop():
        time.sleep(0.002)
    Path(folder, f"stopped-{me.attempt}-{me.rank}").write_text(str(os.getpid()))
    raise Stopped("told to")


def begun(folder: Path, attempt: int, what: str = "begun") -> list[float]:
    texts = [file.read_text() for file in folder.glob(f"{what}-{attempt}-*")]
    return [float(text) for text in texts if text]


@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def fresh(hold_s: float, path: str) -> None:
    if path:
        Path(path).write_text(str(time.time()))
    time.sleep(hold_s)


def start_raw(
    hosts: Sequence[VirtualHost], hold_s: float = 0.0, folder: Path | None = None, tag: str = ""
) -> list[Any]:
    """Start a fresh process on each of these hosts; with a folder, each notes when it came to its first line."""
    refs = []
    for rank, host in enumerate(hosts):
        strategy = NodeAffinitySchedulingStrategy(host.node_id, soft=False)
        path = "" if folder is None else str(folder / f"begun-{tag}-{rank}")
        refs.append(fresh.options(scheduling_strategy=strategy).remote(hold_s, path))
    return refs


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


def slice_hosts(cluster: VirtualCluster) -> list[VirtualHost]:
    return [host for row in cluster.slices for host in row.hosts]


def raw_run(cluster: VirtualCluster, _folder: Path, _even: Callable[[], None]) -> float:
    start = time.perf_counter()
    ray.get(start_raw(slice_hosts(cluster)), timeout=60)
    return time.perf_counter() - start


def raw_kill(cluster: VirtualCluster, folder: Path, even: Callable[[], None]) -> float:
    """A loss in raw Ray: the first failure stops the others by force, then all begin anew with the spare's hosts."""
    first, second, spare = (row.hosts for row in cluster.slices)
    refs = start_raw([*first, *second], 3600.0, folder, "1")
    wait_until(lambda: len(begun(folder, 1)) == len(refs), "raw tasks")
    even()
    at = time.time()
    cluster.kill_host(second[1])
    done, left = ray.wait(refs, num_returns=1, timeout=60)
    assert done
    for ref in left:
        ray.cancel(ref, force=True)
    for ref in left:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(ref, timeout=60)
    again = start_raw([*first, *spare], 0.0, folder, "2")
    ray.get(again, timeout=60)
    return max(begun(folder, 2)) - at


def lose(cluster: VirtualCluster, folder: Path, even: Callable[[], None], *, notice: bool) -> float:
    """A fleet of two with a spare: return the seconds from the loss, or the last stop, to all hosts' first lines."""
    with SliceController(TpuSlice(POD), 2, spares=1) as fleet:
        fleet.wait_ready(3, timeout_s=60)
        run = fleet.submit(mark, str(folder))
        wait_until(lambda: len(begun(folder, 1)) == 2 * HOSTS, "the first attempt")
        even()
        victim = next(row for row in fleet.status().slices if row.id == run.attempts[0].slices[1])
        host = next(row for row in cluster.slices if row.name == victim.place).hosts[1]
        at = time.time()
        if notice:
            deadline_ms = int((at + 30) * 1000)
            told = GcsClient(address=cluster.address).drain_node(host.node_id, _PREEMPTION, "bench", deadline_ms)
            assert told[0], told
        else:
            cluster.kill_host(host)
        if notice:
            wait_until(lambda: len(begun(folder, 1, "stopped")) == 2 * HOSTS, "the end of the first attempt")
            pids = [int(pid) for pid in begun(folder, 1, "stopped")]
            wait_until(lambda: not any(alive(pid) for pid in pids), "the end of its processes")
            at = time.time()
        wait_until(lambda: len(begun(folder, 2)) == 2 * HOSTS, "the second attempt")
        took = max(begun(folder, 2)) - at
        run.cancel(0.0)
        run.wait(60)
    if notice:
        cluster.kill_host(host)
    return took


def repair(cluster: VirtualCluster, slices: int) -> None:
    """Bring the cluster back to whole slices."""
    for row in cluster.slices:
        if not all(host.alive for host in row.hosts):
            cluster.remove_slice(row)
    cluster.add_slices([POD] * (slices - len(cluster.slices)))


def raw_start(cluster: VirtualCluster, folder: Path, _even: Callable[[], None]) -> float:
    """Fresh processes on the hosts of two slices, to the first line on each."""
    at = time.time()
    ray.get(start_raw(slice_hosts(cluster)[: 2 * HOSTS], 0.0, folder, "1"), timeout=60)
    return max(begun(folder, 1)) - at


def our_run(fleet: SliceController) -> float:
    start = time.perf_counter()
    fleet.run(nothing)
    return time.perf_counter() - start


_RAW = {"run": raw_run, "kill": raw_kill, "notice": raw_start}


def measure(cluster: VirtualCluster, case: str, rounds: int, idle: int, scratch: Path) -> dict[str, Any]:
    """Alternate the two; return the row of the table."""
    slices = len(cluster.slices)
    raws, ours = [], []

    def even() -> None:
        set_idle_workers(cluster, idle, scratch)

    with contextlib.ExitStack() as stack:
        if case == "run":
            fleet = stack.enter_context(SliceController(TpuSlice(POD), slices))
            fleet.wait_ready(slices, timeout_s=60)
        for number in range(rounds + 1):
            took = {}
            for kind in ("raw", "ours") if number % 2 else ("ours", "raw"):
                repair(cluster, slices)
                folder = scratch / f"{case}-{idle}-{number}-{kind}"
                folder.mkdir()
                even()
                if kind == "raw":
                    took[kind] = _RAW[case](cluster, folder, even)
                elif case == "run":
                    took[kind] = our_run(fleet)
                else:
                    took[kind] = lose(cluster, folder, even, notice=case == "notice")
            if number:  # the first pair warms up
                raws.append(took["raw"])
                ours.append(took["ours"])
            print(f"  {case} idle={idle} {number}/{rounds}: raw {took['raw']:.3f} s, ours {took['ours']:.3f} s")
    ratios = [one / base for one, base in zip(ours, raws, strict=True)]
    return {
        "what": case,
        "idle": idle,
        "rounds": rounds,
        "raw_s": statistics.median(raws),
        "ours_s": statistics.median(ours),
        "ratio": statistics.median(ratios),
        "ratio_95": list(bootstrap_interval(ratios)),
        "bound": BOUND,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="*", default=["run", "kill", "notice"])
    parser.add_argument("--idle", type=int, nargs="*", default=[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    rows = []
    for case in options.cases:
        slices = 4 if case == "run" else 3
        with quiet_cluster(slices) as cluster, tempfile.TemporaryDirectory() as scratch:
            rows += [measure(cluster, case, options.rounds, idle, Path(scratch)) for idle in options.idle]
    print(f"\n{'case':<8}{'idle':>5}{'raw s':>9}{'ours s':>9}{'ratio':>7}  {'95 % of ratio':<16}{'bound':>6}")
    for row in rows:
        low, high = row["ratio_95"]
        verdict = "ok" if row["ratio"] <= row["bound"] else "OVER"
        print(
            f"{row['what']:<8}{row['idle']:>5}{row['raw_s']:>9.3f}{row['ours_s']:>9.3f}{row['ratio']:>7.2f}"
            f"  {low:>6.2f} .. {high:<6.2f}{row['bound']:>6.2f}  {verdict}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return int(options.check and any(row["ratio"] > row["bound"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
