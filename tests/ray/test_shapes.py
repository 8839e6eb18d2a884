"""Shapes on real raylets: GPU gangs, CPU slices that share a node, TPU machines of other sizes; all at once."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray

from sliceform.controller import CpuSlice, GpuSlice, SliceController, TpuSlice
from sliceform.controller.errors import ConfigurationError, InsufficientSlicesError
from sliceform.controller.testing.virtual.cluster import VirtualCluster

from ._waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

_NODE_ID = "ray.io/node-id"

#: A driver on a machine of two CPUs that is a cluster by itself.
_LAPTOP = """
import logging
import sys
import ray
import structlog
from sliceform.controller import CpuSlice, SliceController, host_context
from sliceform.controller.errors import InsufficientSlicesError

# Unconfigured, lines of its thread would fall into the middle of ours.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
for hosts in (1, 2):
    with SliceController(CpuSlice(hosts)) as fleet:
        print("ranks", fleet.run(lambda: host_context().rank).values)
with SliceController(CpuSlice(3)) as fleet:
    try:
        fleet.wait_ready(timeout_s=0.5)
    except InsufficientSlicesError as error:
        print("why", " ".join(str(error).split()))
"""


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


@pytest.mark.usefixtures("no_leaks")
def test_slices_that_share_a_node_see_gpus_of_their_own(cluster: VirtualCluster) -> None:
    """Two slices of four GPUs on a node of eight; a function that asks for fewer sees fewer, for more is refused."""
    (host,) = cluster.add_hosts(1, gpus=8)
    with SliceController(GpuSlice(1, 4), 2) as fleet:
        fleet.wait_ready(2, timeout_s=60)
        values = fleet.run(seen).values
        assert {node for _, _, node in values} == {host.node_id}
        first, second = (set(gpus.split(",")) for _, gpus, _ in values)
        assert len(first) == len(second) == 4
        assert first | second == set("01234567")
        fewer = fleet.run(ray.remote(num_gpus=1)(seen)).values
        assert [len(gpus.split(",")) for _, gpus, _ in fewer] == [1, 1]
        with pytest.raises(ConfigurationError, match="asks for 5 GPU, but a host of this fleet has 4"):
            fleet.submit(ray.remote(num_gpus=5)(seen))


@pytest.mark.usefixtures("no_leaks")
def test_an_instance_of_a_divided_gpu_counts_as_one(cluster: VirtualCluster) -> None:
    """NVIDIA's MIG: the node names its instances, Ray counts each as a GPU, and each slice sees one of its own."""
    instances = ("MIG-0a", "MIG-0b")
    (divided,) = cluster.add_hosts(1, gpus=2, env={"CUDA_VISIBLE_DEVICES": ",".join(instances)})
    shape = GpuSlice(1, 1, label_selector={_NODE_ID: f"in({divided.node_id})"})
    with SliceController(shape, slices=2) as fleet:
        assert sorted(visible for _, visible, _ in fleet.run(seen).values) == list(instances)


@pytest.mark.usefixtures("no_leaks")
def test_slices_are_where_their_selector_says(cluster: VirtualCluster) -> None:
    """On the nodes named and on no other; `why` tells a selector that no node meets."""
    (named,) = cluster.add_hosts(1, cpus=2)
    condition = f"in({named.node_id},{'0' * 56})"
    with SliceController(CpuSlice(2, label_selector={_NODE_ID: condition})) as fleet:
        assert {node for _, _, node in fleet.run(seen).values} == {named.node_id}
    with SliceController(CpuSlice(1, 2, label_selector={_NODE_ID: f"!{condition}"})) as fleet:
        assert named.node_id not in {node for _, _, node in fleet.run(seen).values}
    with SliceController(CpuSlice(label_selector={"pool": "nowhere"})) as fleet:
        with pytest.raises(InsufficientSlicesError, match=r"no living node has the labels {'pool': 'nowhere'}"):
            fleet.wait_ready(timeout_s=0.5)
        assert fleet.why().codes == ("host_missing",)


@pytest.mark.usefixtures("no_leaks")
def test_a_tpu_slice_is_where_its_selector_says(cluster: VirtualCluster) -> None:
    """And nowhere else, though another slice of its pod type is free."""
    others = [cluster.add_slice("v4-8") for _ in range(2)]
    wanted = others[1].hosts[0].node_id
    with SliceController(TpuSlice("v4-8", label_selector={_NODE_ID: f"in({wanted})"}), slices=1) as fleet:
        assert [node for _, _, node in fleet.run(seen).values] == [wanted]
    for slice_ in others:
        cluster.remove_slice(slice_)


@pytest.mark.usefixtures("no_leaks")
def test_fleets_of_several_shapes_share_a_cluster(cluster: VirtualCluster) -> None:
    """A slice of two four-chip machines, GPU gangs of two sizes, and CPU hosts: a loss of one is none of the others."""
    machines = cluster.add_slice("v6e-8", chips_per_host=4)
    cluster.add_hosts(3, gpus=2)
    shapes = [TpuSlice("v6e-8", chips_per_host=4), GpuSlice(1, 2), GpuSlice(2, 1), CpuSlice(2)]
    with ExitStack() as fleets:
        tpu, *others = [fleets.enter_context(SliceController(shape)) for shape in shapes]
        for fleet in (tpu, *others):
            fleet.wait_ready(timeout_s=60)
        assert [rank for rank, _, _ in tpu.run(seen).values] == [0, 1]
        assert {node for _, _, node in tpu.run(seen).values} == {host.node_id for host in machines.hosts}
        seqs = [fleet.history.last_seq for fleet in others]
        cluster.kill_host(machines.hosts[1])
        until(lambda: not tpu.status().counts.get("ready"), tpu.status, within_s=30)
        assert [fleet.history.last_seq for fleet in others] == seqs
        assert [len(fleet.run(seen).values) for fleet in others] == [1, 2, 2]
    cluster.remove_slice(machines)


@pytest.mark.usefixtures("no_leaks")
def test_memory_and_other_resources_are_reserved_and_given_to_the_function(cluster: VirtualCluster) -> None:
    """They are in the bundle for the slice's whole life, and the function's process has them."""
    machine = f"node:{cluster.address.partition(':')[0]}"
    reserved = {"CPU": 0.5, "memory": 64 * 2**20, machine: 0.25}
    shape = CpuSlice(1, 0.5, memory_per_host=64 * 2**20, resources_per_host={machine: 0.25})
    with SliceController(shape) as fleet:
        fleet.wait_ready(timeout_s=60)
        rows = [row for row in ray.util.placement_group_table().values() if row["state"] == "CREATED"]
        assert [dict(row["bundles"]) for row in rows] == [{0: reserved}]
        (assigned,) = fleet.run(lambda: ray.get_runtime_context().get_assigned_resources()).values
    assert {name.partition("_group_")[0]: amount for name, amount in assigned.items()} == reserved


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="sf-sh-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_laptop_serves_what_fits_and_says_what_does_not(short_folder: Path) -> None:
    """A plain `ray.init()`, no cluster: one host or two on two CPUs, not three."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    driver = [sys.executable, "-c", _LAPTOP, str(short_folder)]
    output = subprocess.run(driver, env=environment, stdout=subprocess.PIPE, text=True, timeout=90, check=True).stdout
    lines = output.splitlines()
    assert [line for line in lines if line.startswith("ranks")] == ["ranks [0]", "ranks [0, 1]"]
    (why,) = [line for line in lines if line.startswith("why")]
    assert "3 hosts with 1 CPU are needed, the living nodes can hold 2" in why
