"""Slices without TPUs on real raylets: gangs of GPU hosts, and CPU slices that share a node."""

import os
import time

import pytest

from sliceform.controller import CpuSlice, GpuSlice, SliceController
from sliceform.controller.testing.virtual_cluster import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


def seen() -> tuple[int, str, str]:
    """Runs on every host: its rank, the GPUs it may use, and its Ray node."""
    import ray

    from sliceform.controller import host_context

    node = ray.get_runtime_context().get_node_id()
    return host_context().rank, os.environ.get("CUDA_VISIBLE_DEVICES", ""), node


@pytest.mark.usefixtures("no_leaks")
def test_a_gang_of_gpu_hosts_has_its_gpus_and_a_node_per_host(cluster: VirtualCluster) -> None:
    """Two hosts of two GPUs each; a lost host is replaced by the third, and its neighbour is used again."""
    hosts = cluster.add_hosts(3, gpus=2)
    with SliceController(GpuSlice(2, 2), 1) as fleet:
        fleet.wait_ready(1, timeout_s=60)
        values = fleet.run(seen).values
        assert [value[0] for value in values] == [0, 1]
        assert {value[1] for value in values} == {"0,1"}
        nodes = {value[2] for value in values}
        assert len(nodes) == 2
        lost = next(host for host in hosts if host.node_id == values[1][2])
        cluster.kill_host(lost)
        end = time.monotonic() + 60
        while fleet.status().ready != 1 or fleet.status().slices[-1].id == "slice-1":
            assert time.monotonic() < end, str(fleet.status())
            time.sleep(0.05)
        again = {value[2] for value in fleet.run(seen).values}
        assert lost.node_id not in again
        assert values[0][2] in again


@pytest.mark.usefixtures("no_leaks")
def test_cpu_slices_share_a_node(cluster: VirtualCluster) -> None:
    """Two slices of two hosts fit on one machine of four CPUs."""
    cluster.add_hosts(1, cpus=4)
    with SliceController(CpuSlice(2), 2) as fleet:
        fleet.wait_ready(2, timeout_s=60)
        assert [value[0] for value in fleet.run(seen).values] == [0, 1, 2, 3]
