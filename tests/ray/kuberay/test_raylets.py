"""A fleet on KubeRay's autoscaler, with raylets: what waits brings exactly the slices that it needs."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from ray.autoscaler.v2.sdk import get_cluster_resource_state

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.ray_backend import demand
from sliceform.controller.testing.virtual.cluster import VirtualCluster

from .kubernetes import HEAD_GROUP, Group, Kubernetes
from .world import World, wait_for, waiting_groups

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(240)]

_DRIVER = """
import sys, threading
import ray
from sliceform.controller import SliceController, TpuSlice
ray.init(address=sys.argv[1], log_to_driver=False)
with SliceController(TpuSlice("v4-16"), 1):
    threading.Event().wait()
"""

#: Have Ray see in a second or two that a raylet is dead.
_QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}

SETTINGS = Settings(nodes_every_s=0.3)


@pytest.fixture(scope="module")
def world(
    start_cluster: Callable[..., AbstractContextManager[VirtualCluster]], hide_sliceform: dict[str, str]
) -> Iterator[World]:
    """A head, and a worker group of slices of two hosts, at most four."""
    env = {**hide_sliceform, "RAY_NODE_TYPE_NAME": HEAD_GROUP}
    group = Group("v4", 2, 4, {"cpu": "4", "google.com/tpu": "4"}, "2x2x2")
    with (
        start_cluster(head_cpus=0, env=env, system_config=_QUICK) as cluster,
        pytest.MonkeyPatch.context() as patch,
    ):
        made = World(cluster, Kubernetes([group], idle_timeout_s=3.0), patch)
        # As if it had run for long.
        made.steps.step()
        yield made


def test_slices_come_and_go_as_they_are_wanted(world: World) -> None:
    """0, 1, 4, 2 and 0 slices: each is asked for once, and all of its hosts go with it."""
    kubernetes = world.kubernetes
    # Some other program's, of a kind that no node type has.
    world.gcs.request_cluster_resource_constraint([{"theirs": 1}], [{}], [1], timeout_s=10)
    theirs = list(get_cluster_resource_state(world.gcs).cluster_resource_constraints)
    assert len(theirs) == 1
    with SliceController(TpuSlice("v4-16"), 1, settings=SETTINGS) as fleet:
        world.until(lambda: fleet.status().ready == 1)
        assert kubernetes.asked == [("v4", 1)]
        fleet.scale(4)
        world.until(lambda: fleet.status().ready == 4)
        assert kubernetes.replicas("v4") == 4
        fleet.scale(2)
        world.until(lambda: kubernetes.replicas("v4") == 2 and world.alive() == 4)
        assert fleet.status().ready == 2
    world.until(lambda: kubernetes.replicas("v4") == 0 and world.alive() == 0)
    assert sum(count for _, count in kubernetes.asked) == 4
    assert waiting_groups() == []
    assert list(get_cluster_resource_state(world.gcs).cluster_resource_constraints) == theirs
    world.gcs.request_cluster_resource_constraint([], [], [], timeout_s=10)


def test_a_lost_slice_brings_one_whose_hosts_come_one_by_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """First with its pod: the operator makes the replica anew; then without: the autoscaler takes it away."""
    monkeypatch.setattr(demand, "HEAL_S", 12.0)
    kubernetes, before = world.kubernetes, len(world.kubernetes.asked)
    world.at_once = 1
    with SliceController(TpuSlice("v4-16"), 1, settings=SETTINGS) as fleet:
        world.until(lambda: fleet.status().ready == 1)
        assert kubernetes.asked[before:] == [("v4", 1)]
        first = fleet.status().slices[0]
        kubernetes.evict(kubernetes.members(first.place)[1])
        world.until(lambda: fleet.status().ready == 1 and fleet.status().slices[0].replaces == first.id)
        assert kubernetes.asked[before:] == [("v4", 1)]
        second = fleet.status().slices[0]
        world.cluster.kill_host(world.hosts[kubernetes.members(second.place)[0].name])
        world.until(lambda: fleet.status().ready == 1 and fleet.status().slices[0].replaces == second.id)
        assert kubernetes.asked[before:] == [("v4", 1), ("v4", 1)]
        assert kubernetes.replicas("v4") == 1
    world.at_once = None
    world.until(lambda: world.alive() == 0 and kubernetes.replicas("v4") == 0)
    assert waiting_groups() == []


def test_demand_goes_with_its_fleet(world: World) -> None:
    """When it is closed, and when its driver is killed; what had been asked for by then is not asked for again."""
    asked = len(world.kubernetes.asked)
    with SliceController(TpuSlice("v4-16"), 2, settings=SETTINGS) as fleet:
        wait_for(lambda: sum("/demand/" in name for name in waiting_groups()) == 2)
        wait_for(lambda: any("asked for 2 slices" in finding.text for finding in fleet.why("slice-1").findings))
    assert waiting_groups() == []
    with subprocess.Popen([sys.executable, "-c", _DRIVER, world.cluster.address], start_new_session=True) as driver:
        try:
            wait_for(lambda: any("/demand/" in name for name in waiting_groups()))
        finally:
            os.killpg(driver.pid, signal.SIGKILL)
    wait_for(lambda: waiting_groups() == [])
    world.rounds(3)
    assert len(world.kubernetes.asked) == asked
