"""The virtual cluster is faithful: hosts look like TPU VMs, losses are real, nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._raylet import GcsClient
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sliceform.controller.testing.virtual import processes
from sliceform.controller.testing.virtual.cluster import (
    VirtualCluster,
    VirtualClusterError,
    VirtualHost,
    VirtualSlice,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(60)]

_OWNER = """
import os, signal, sys
from sliceform.controller.testing.virtual.cluster import VirtualCluster
cluster = VirtualCluster(head_cpus=1)
host = cluster.add_slice("v4-8").hosts[0]
print(cluster.mark, cluster.head.pid, host.pid, cluster._directory, flush=True)
"""


@pytest.fixture(scope="module")
def slices(cluster: VirtualCluster) -> list[VirtualSlice]:
    """Two slices of two hosts, on the module's cluster."""
    return cluster.add_slices(["v4-16", "v4-16"])


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def node(host: VirtualHost) -> dict[str, Any]:
    (found,) = [entry for entry in ray.nodes() if entry["NodeID"] == host.node_id]
    return found


def run_on(host: VirtualHost, function: Callable[[], Any]) -> Any:
    affinity = NodeAffinitySchedulingStrategy(host.node_id, soft=False)
    remote = ray.remote(function).options(num_cpus=0, scheduling_strategy=affinity)
    return ray.get(remote.remote(), timeout=30)


def start_strays() -> list[int]:
    """Start processes that left the session, one of them without any environment."""
    import os
    import subprocess

    strays = [
        subprocess.Popen(["sleep", "600"], start_new_session=True),
        subprocess.Popen(["sleep", "600"], start_new_session=True, env={}),
    ]
    return [os.getpid(), *(stray.pid for stray in strays)]


def test_hosts_look_like_tpu_vms(slices: list[VirtualSlice]) -> None:
    """Labels, resources and variables are those that Ray derives on a TPU VM."""
    for slice_ in slices:
        assert [host.worker_id for host in slice_.hosts] == [0, 1]
        for host in slice_.hosts:
            entry = node(host)
            assert entry["Alive"]
            assert host.alive
            assert host.slice == slice_.name
            assert entry["Labels"] == {
                "ray.io/node-id": host.node_id,
                "ray.io/accelerator-type": "TPU-V4",
                "ray.io/tpu-slice-name": slice_.name,
                "ray.io/tpu-worker-id": str(host.worker_id),
                "ray.io/tpu-topology": "2x2x2",
                "ray.io/tpu-pod-type": "v4-16",
            }
            resources = entry["Resources"]
            assert resources["TPU"] == 4
            assert resources["CPU"] == 4
            assert resources[slice_.name] == 1
            assert resources["accelerator_type:TPU-V4"] == 1
            assert resources.get("TPU-v4-16-head") == (1 if host.worker_id == 0 else None)


def test_tasks_see_the_variables_of_their_host(slices: list[VirtualSlice]) -> None:
    """The `TPU_*` variables reach the workers, and each host has its own worker id."""
    for host in slices[0].hosts:
        seen = run_on(host, lambda: dict(os.environ))
        assert seen["TPU_NAME"] == slices[0].name
        assert seen["TPU_WORKER_ID"] == str(host.worker_id)
        assert seen["TPU_ACCELERATOR_TYPE"] == "v4-16"
        assert seen["TPU_TOPOLOGY"] == "2x2x2"
        assert seen["TPU_SKIP_MDS_QUERY"] == "true"
        assert len(seen["TPU_WORKER_HOSTNAMES"].split(",")) == 2


def test_sliceform_is_hidden_from_the_hosts(slices: list[VirtualSlice]) -> None:
    """`env` reaches the workers: the fixture hides sliceform with it."""

    def hidden() -> bool:
        try:
            import sliceform.controller  # noqa: F401
        except ModuleNotFoundError:
            return True
        return False

    assert run_on(slices[0].hosts[0], hidden)


def test_plain_hosts_have_what_was_asked_for(cluster: VirtualCluster) -> None:
    """GPUs are in name only, and no TPU labels appear."""
    (host,) = cluster.add_hosts(1, gpus=2, cpus=3)
    entry = node(host)
    assert (entry["Resources"]["GPU"], entry["Resources"]["CPU"]) == (2, 3)
    assert list(entry["Labels"]) == ["ray.io/node-id"]
    assert host.slice is None
    cluster.kill_host(host)


def test_a_frozen_raylet_stands_still_until_it_is_thawed(cluster: VirtualCluster, slices: list[VirtualSlice]) -> None:
    """Freezing the raylet alone leaves the rest running; freezing the host stops all."""
    host = slices[0].hosts[0]
    cluster.freeze_host(host, raylet_only=True)
    assert host.frozen
    assert processes.state_of(host.pid) not in ("T", "t")
    cluster.thaw_host(host)
    assert not host.frozen

    cluster.freeze_host(host)
    assert {processes.state_of(pid) for pid in host.pids()} == {"T"}
    cluster.thaw_host(host)
    assert run_on(host, lambda: 42) == 42


def test_killing_a_host_takes_all_that_ran_there(cluster: VirtualCluster, slices: list[VirtualSlice]) -> None:
    """Also processes that left the session and dropped the environment; other hosts stay."""
    victim, neighbour = slices[0].hosts
    strays = run_on(victim, start_strays)
    assert set(strays) <= victim.pids()
    cluster.kill_host(victim)
    assert not victim.alive
    assert [processes.state_of(pid) for pid in strays] == [None, None, None]
    assert victim.pids() == set()
    assert neighbour.alive
    assert victim not in cluster.hosts


def test_killing_the_raylet_leaves_the_host_process(cluster: VirtualCluster, slices: list[VirtualSlice]) -> None:
    """The host counts as not alive; what is left of it ends with the cluster or a second kill."""
    host = slices[0].hosts[1]
    cluster.kill_host(host, raylet_only=True)
    assert not host.alive
    assert processes.state_of(host.pid) is not None
    cluster.kill_host(host)
    assert processes.state_of(host.pid) is None


def test_a_removed_slice_leaves_the_node_table_at_once(cluster: VirtualCluster, slices: list[VirtualSlice]) -> None:
    """A clean end is an expected termination to Ray, and the name is free again."""
    removed = slices[1]
    entries = [node(host) for host in removed.hosts]
    assert all(entry["Alive"] for entry in entries)
    cluster.remove_slice(removed)
    wait_until(lambda: not any(node(host)["Alive"] for host in removed.hosts), 3.0)
    assert [node(host)["DeathReason"] for host in removed.hosts] == [1, 1]
    assert removed.name not in [slice_.name for slice_ in cluster.slices]
    with pytest.raises(VirtualClusterError, match="not in this cluster"):
        cluster.remove_slice(removed)


def test_a_slice_that_lost_a_host_can_be_removed(cluster: VirtualCluster) -> None:
    """What is left of it is asked to end; what is gone needs no asking."""
    broken = cluster.add_slice("v4-16")
    cluster.kill_host(broken.hosts[0])
    cluster.remove_slice(broken)
    assert all(not host.alive for host in broken.hosts)


@pytest.mark.usefixtures("no_leaks")
def test_leftovers_are_seen_and_waited_for(cluster: VirtualCluster, leftovers: Callable[[], list[str]]) -> None:
    """The check that other Ray tests rely on sees groups, actors and strays."""

    @ray.remote(num_cpus=0)
    class Holder:
        def start_strays(self) -> list[int]:
            return start_strays()

    # On the head: Ray still believes in hosts that earlier tests have killed.
    head = cluster.head.node_id
    group = ray.util.placement_group([{"CPU": 1}], name="held", strategy="STRICT_PACK", _soft_target_node_id=head)
    assert group.wait(20)
    affinity = NodeAffinitySchedulingStrategy(head, soft=False)
    holder = Holder.options(scheduling_strategy=affinity).remote()
    strays = ray.get(holder.start_strays.remote(), timeout=30)[1:]
    seen = " ".join(leftovers())
    for sign in ("group held CREATED", "Holder", "sleep", *map(str, strays)):
        assert sign in seen
    ray.kill(holder)
    ray.util.remove_placement_group(group)
    processes.send(strays, signal.SIGKILL)


def test_hosts_may_come_in_another_order_or_not_at_all(cluster: VirtualCluster) -> None:
    """`shuffle` orders registration against the worker ids, `missing` leaves hosts out."""
    first, second = cluster.add_slice("v4-16", name="shuffled", shuffle=0).hosts
    infos = GcsClient(address=cluster.address).get_all_node_info().values()
    started = {info.node_id.hex(): info.start_time_ms for info in infos}
    assert started[second.node_id] < started[first.node_id]

    partial = cluster.add_slice("v4-16", name="partial", missing=[0], wait=False)
    cluster.wait_for_nodes()
    assert [host.worker_id for host in partial.hosts] == [1]
    assert node(partial.hosts[0])["Alive"]


def test_wrong_requests_are_refused_and_start_nothing(cluster: VirtualCluster) -> None:
    """Unknown pod type, unknown worker id, name in use."""
    cluster.add_slice("v4-8", name="taken")
    before = cluster.hosts
    with pytest.raises(ValueError, match="v4-17"):
        cluster.add_slices(["v4-16", "v4-17"])
    with pytest.raises(ValueError, match="worker ids 0 to 1"):
        cluster.add_slice("v4-16", missing=[2])
    with pytest.raises(ValueError, match="named taken"):
        cluster.add_slice("v4-16", name="taken")
    assert cluster.hosts == before


def test_a_host_that_does_not_come_up_is_reported_with_its_log(
    cluster: VirtualCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time and in words, and what was started for it is gone again."""
    before = cluster.hosts
    pids = cluster.pids()
    with pytest.raises(VirtualClusterError, match=r"(?s)did not start: Traceback.*--- /"):
        cluster.add_hosts(1, cpus=-1)
    monkeypatch.setattr(cluster, "_start_timeout_s", 0.05)
    with pytest.raises(VirtualClusterError, match="did not register in"):
        cluster.add_slice("v4-16")
    assert cluster.hosts == before
    assert cluster.pids() <= pids


def test_two_clusters_and_another_ray_do_not_meet(cluster: VirtualCluster) -> None:
    """An unrelated `ray.init()` starts its own cluster; a second virtual one has its own nodes."""
    script = "import ray; ray.init(num_cpus=1, include_dashboard=False); print(len(ray.nodes()))"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True) as other,
        VirtualCluster(head_cpus=1) as second,
    ):
        assert second.address != cluster.address
        assert len(GcsClient(address=second.address).get_all_node_info()) == 1
        output, _ = other.communicate(timeout=40)
        assert output.split()[-1] == "1"
    assert cluster.head.alive
    assert processes.members(second.mark) == set()


def test_an_exception_in_the_body_leaves_nothing() -> None:
    """The `with` block ends the cluster on the way out; closing again is harmless."""
    cluster = VirtualCluster(head_cpus=1)
    mark, directory = cluster.mark, cluster._directory
    assert processes.members(mark)
    with pytest.raises(KeyboardInterrupt), cluster:
        raise KeyboardInterrupt
    assert processes.members(mark) == set()
    assert not directory.exists()
    cluster.close()
    with pytest.raises(VirtualClusterError, match="closed"):
        cluster.add_hosts(1)


@pytest.mark.parametrize("end", ["sys.exit(3)", "cluster.freeze_host(host); os.kill(os.getpid(), 9)"])
def test_nothing_outlives_the_owner(end: str) -> None:
    """Neither at interpreter exit without `close`, nor when the owner is killed with a frozen host."""
    owner = subprocess.run([sys.executable, "-c", _OWNER + end], stdout=subprocess.PIPE, timeout=50, check=False)
    mark, head, host, directory = owner.stdout.decode().split()
    assert owner.returncode in (3, -signal.SIGKILL)
    wait_until(lambda: not processes.members(mark))
    wait_until(lambda: not Path(directory).exists())
    assert processes.state_of(int(head)) is None
    assert processes.state_of(int(host)) is None
    wait_until(lambda: not wardens(mark))


def wardens(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if re.search(rf"virtual_processes\.py\0{mark}", command):
            found.append(command)
    return found
