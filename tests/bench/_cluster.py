"""What the measurements on real raylets share: a quiet cluster, idle workers to a stated number, and statistics."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import structlog
from ray._private.internal_api import node_stats
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualHost

POD = "v4-16"
_WAIT_S = 60.0


def quiet() -> None:
    """Filter the log at WARNING, as an application would, and show none of it."""
    # What is lost on purpose is a warning each time: formatted as ever, but not shown between the results.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(Path(os.devnull).open("w")),  # noqa: SIM115 - until the end
        cache_logger_on_first_use=True,
    )


@contextlib.contextmanager
def quiet_cluster(slices: int) -> Iterator[VirtualCluster]:
    """Connect to a virtual cluster of two-host slices, with a quiet log."""
    quiet()
    with VirtualCluster() as cluster:
        cluster.add_slices([POD] * slices)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield cluster
        finally:
            ray.shutdown()


def wait_until(done: Callable[[], Any], what: str, timeout_s: float = _WAIT_S) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not come.

    """
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.002)


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def idle_workers(host: VirtualHost) -> list[int]:
    """Return the Python workers of a host that wait for work."""
    return [pid for pid in host.pids() if _command(pid).startswith((b"ray::IDLE", b"ray::run_host"))]


@ray.remote(num_cpus=0)
def _occupy(path: str, count: int) -> None:
    Path(path).joinpath(str(os.getpid())).touch()
    end = time.monotonic() + _WAIT_S
    while len(list(Path(path).iterdir())) < count and time.monotonic() < end:
        time.sleep(0.01)


def set_idle_workers(cluster: VirtualCluster, count: int, scratch: Path) -> None:
    """Bring the idle workers of every host to `count`: start what is missing, end what is too many."""
    hosts = [host for host in cluster.hosts if host.slice is not None]
    refs = []
    for host in hosts:
        if len(idle_workers(host)) < count:
            folder = scratch / f"{host.name}-{random.randrange(10**9)}"
            folder.mkdir()
            strategy = NodeAffinitySchedulingStrategy(host.node_id, soft=False)
            refs += [_occupy.options(scheduling_strategy=strategy).remote(str(folder), count) for _ in range(count)]
    ray.get(refs, timeout=_WAIT_S)
    for host in hosts:
        wait_until(lambda host=host: len(idle_workers(host)) >= count, f"{count} idle workers on {host.name}")
        surplus = set(idle_workers(host)[count:])
        for pid in surplus:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Not the end of the processes: until the raylet has seen it, it gives them work.
        wait_until(
            lambda host=host, surplus=surplus: surplus.isdisjoint(_known_to_raylet(host)),
            f"{count} idle workers on {host.name}",
        )


def _known_to_raylet(host: VirtualHost) -> set[int]:
    row = next(row for row in ray.nodes() if row["NodeID"] == host.node_id)
    stats = node_stats(row["NodeManagerAddress"], row["NodeManagerPort"], include_memory_info=False)
    return {worker.pid for worker in stats.core_workers_stats}


def bootstrap_interval(values: Sequence[float], rounds: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(0.025 * rounds)], medians[int(0.975 * rounds)]
