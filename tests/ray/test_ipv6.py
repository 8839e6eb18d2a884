"""A fleet on a cluster whose hosts have addresses of IPv6."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.model.status import SliceStatus
from sliceform.controller.testing.virtual.cluster import VirtualCluster

from ._waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(120)]


def addresses() -> list[str]:
    """Give this machine's addresses of IPv6 that Ray can use: neither loopback nor of one link only."""
    table = Path("/proc/net/if_inet6")
    rows = table.read_text().split("\n") if table.exists() else []
    found = [ipaddress.IPv6Address(int(row.split()[0], 16)) for row in rows if row]
    return [str(each) for each in found if not each.is_loopback and not each.is_link_local]


@pytest.fixture(scope="module")
def cluster() -> Iterator[VirtualCluster]:
    if not addresses():
        pytest.skip("this machine has no address of IPv6 beyond the loopback's")
    with VirtualCluster(ip=addresses()[0]) as started:
        ray.init(address=started.address, log_to_driver=False)
        yield started
        ray.shutdown()


def meet() -> tuple[int, str, float]:
    """Runs on every host: its rank, where the hosts meet, and a sum over all of them, through jax."""
    import jax
    from jax.experimental import multihost_utils

    from sliceform.controller import host_context, initialize_jax

    initialize_jax()
    ranks = multihost_utils.process_allgather(jax.numpy.float32(host_context().rank + 1))
    return host_context().rank, host_context().coordinator_address, float(ranks.sum())


def work_until_lost() -> int:
    """Runs on every host: works on until its slice is lost; the next attempt returns its number."""
    import time

    from sliceform.controller import host_context

    while host_context().attempt == 1:
        time.sleep(0.05)
    return host_context().attempt


def works_for(run_id: str, row: SliceStatus) -> bool:
    """Whether all hosts of a slice run the first attempt of this run."""
    return row.attempt == f"{run_id}/1" and {host.state for host in row.hosts} == {"running"}


@pytest.mark.usefixtures("no_leaks")
def test_hosts_meet_and_a_lost_one_is_clear_at_once(cluster: VirtualCluster) -> None:
    """Their world forms, and of a killed host the closed ports say that nothing is left of the attempt."""
    slices = cluster.add_slices(["v4-16", "v4-16"])
    with SliceController(TpuSlice("v4-16"), slices=1) as fleet:
        found = fleet.run(meet).values
        assert [(rank, total) for rank, _, total in found] == [(0, 3.0), (1, 3.0)]
        assert {where.rpartition(":")[0] for _, where, _ in found} == {f"[{addresses()[0]}]"}
        run = fleet.options(max_preemptions=1).submit(work_until_lost)
        until(lambda: works_for(run.id, fleet.status().slices[0]), fleet.status)
        place = fleet.status().slices[0].place
        cluster.kill_host(next(slice_ for slice_ in slices if slice_.name == place).hosts[1])
        assert run.result(timeout_s=60).values == [2, 2]
        story = " ".join(change.detail for change in fleet.history.since(0))
        assert "host died" in story
        assert "fenced by time" not in story
