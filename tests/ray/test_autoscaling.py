"""A cluster that begins empty grows for a fleet and shrinks after it: Ray's own autoscaler, nodes on this machine.

The autoscaler is a process in a session of its own, from which its nodes descend. Ray's `AutoscalingCluster` would not
do: it begins and ends with `ray stop --force`, which ends every Ray on the machine.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE
from ray.autoscaler.v2 import monitor
from ray.util.placement_group import placement_group, remove_placement_group

from sliceform.controller import GpuSlice, SliceController, TpuSlice
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.testing.virtual import processes
from sliceform.controller.testing.virtual.cluster import VirtualCluster
from sliceform.controller.testing.virtual.plan import HostPlan, environment

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

_PROVIDER = Path(__file__).with_name("_autoscaling.py")
_OBJECT_STORE = 100 * 1024 * 1024
#: How long growing or shrinking may take, in seconds: Ray gives a node that does not come 30 s, and then another try.
_PATIENCE_S = 90.0

#: Variables by which the provider knows the cluster's head.
_HEAD_ENV = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}

_NODE_TYPES: dict[str, Any] = {
    "v4-16": {
        "node_config": {"pod_type": "v4-16", "hosts": 2},
        "resources": {"CPU": 1, "TPU": 4, "TPU-v4-16-head": 1, "object_store_memory": _OBJECT_STORE},
        "max_workers": 4,
    },
    "gpu": {
        "node_config": {"hosts": 1},
        "resources": {"CPU": 1, "GPU": 2, "object_store_memory": _OBJECT_STORE},
        "max_workers": 4,
    },
}


class Growing(NamedTuple):
    """A cluster with an autoscaler."""

    cluster: VirtualCluster
    #: Ends the autoscaler and all nodes that it started.
    end: Callable[[], None]
    #: All living processes of the autoscaler and of its nodes.
    pids: Callable[[], set[int]]


@pytest.fixture(scope="module")
def growing(
    start_cluster: Callable[..., AbstractContextManager[VirtualCluster]],
    hide_sliceform: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Growing]:
    """A head without any resources, connected, and an autoscaler that may add four nodes of each type."""
    folder = tmp_path_factory.mktemp("autoscaler")
    with start_cluster(head_cpus=0, env={**hide_sliceform, **_HEAD_ENV}) as cluster, ExitStack() as stack:
        mark = f"{cluster.mark}autoscaler"
        stack.enter_context(_autoscaler(cluster.address, mark, hide_sliceform["PYTHONPATH"], folder))
        yield Growing(cluster, stack.close, lambda: processes.members(mark))


@contextlib.contextmanager
def _autoscaler(address: str, mark: str, path: str, folder: Path) -> Iterator[None]:
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_configuration(address)))
    env = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": os.pathsep.join([path, str(_PROVIDER.parent)]),
        "RAY_FAKE_CLUSTER": "1",
    }
    plan = HostPlan("autoscaler", mark, {}, env, folder / "output.txt")
    arguments = [f"--gcs-address={address}", f"--logs-dir={folder}", f"--autoscaling-config={config}"]
    with plan.log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, monitor.__file__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(plan),
            start_new_session=True,
        )
    try:
        yield
    finally:
        processes.kill(lambda: processes.members(mark, session=process.pid))
        process.wait()


def _configuration(address: str) -> dict[str, Any]:
    return {
        "cluster_name": "virtual",
        # Not by Ray's name for its fake provider: that reads defaults from a file which the wheel lacks.
        "provider": {
            "type": "external",
            "module": f"{_PROVIDER.stem}.SliceProvider",
            "gcs_address": address,
            "launch_multiple": True,
            "disable_node_updaters": True,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"node_config": {}, "resources": {}, "max_workers": 0},
            **_NODE_TYPES,
        },
        "max_workers": sum(kind["max_workers"] for kind in _NODE_TYPES.values()),
        "idle_timeout_minutes": 1 / 60,
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "cluster_synced_files": [],
    }


def grown() -> dict[str, dict[str, str]]:
    """Return the labels of all living nodes but the head, by node id."""
    rows = {row["NodeID"]: row["Labels"] for row in ray.nodes() if row["Alive"]}
    del rows[FAKE_HEAD_NODE_ID]
    return rows


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not in time; nodes: {grown()}"
        time.sleep(0.05)


def where() -> tuple[int, int, str]:
    """Runs on every host: its slice's rank, its rank in the slice, and its Ray node."""
    import ray

    from sliceform.controller import host_context

    context = host_context()
    return context.slice_rank, context.host_rank, ray.get_runtime_context().get_node_id()


@pytest.mark.parametrize("shape", [TpuSlice("v4-16"), GpuSlice(2, 2)], ids=["tpu", "gpu"])
def test_an_empty_cluster_grows_by_what_a_fleet_lacks_and_shrinks_after_it(growing: Growing, shape: SliceShape) -> None:
    """No slices, two slices, no slices; nothing but the fleet's placement groups asks for nodes."""
    assert grown() == {}
    with SliceController(shape, 2) as fleet:
        fleet.wait_ready(2, timeout_s=_PATIENCE_S)
        nodes = grown()
        values = fleet.run(where).values
    assert [value[:2] for value in values] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {node for _, _, node in values} == set(nodes)
    assert len(nodes) == 4
    if shape.kind == "tpu":
        names = [nodes[node]["ray.io/tpu-slice-name"] for _, _, node in values]
        assert names[0] == names[1] != names[2] == names[3]
        assert [nodes[node]["ray.io/tpu-worker-id"] for _, _, node in values] == ["0", "1", "0", "1"]
    wait_for(lambda: not grown())


def test_the_end_of_the_autoscaler_ends_its_nodes_and_no_other_ray(growing: Growing) -> None:
    """Nodes that still run end with it; the cluster's head and another cluster go on."""
    group = placement_group([{"GPU": 2}])
    with VirtualCluster(head_cpus=0) as other:
        others = {other.head.raylet_pid, growing.cluster.head.raylet_pid}
        wait_for(grown)
        assert growing.pids()
        growing.end()
        assert growing.pids() == set()
        assert all(processes.state_of(pid) is not None for pid in others)
        assert other.head.alive
    remove_placement_group(group)
