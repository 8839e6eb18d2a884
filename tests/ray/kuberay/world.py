"""A virtual cluster whose hosts are the pods of a RayCluster, driven by the test, round by round."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray._raylet import GcsClient

from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualHost

from .autoscaler import Steps
from .kubernetes import Kubernetes, Pod

#: How long anything may take, seconds.
PATIENCE_S = 90.0
_ROUND_S = 0.1


class World:
    """Ray's autoscaler, a Kubernetes in memory, and a raylet for every pod that may run."""

    def __init__(self, cluster: VirtualCluster, kubernetes: Kubernetes, patch: pytest.MonkeyPatch) -> None:
        """Take the head, the API server, and what puts it in place of Ray's client."""
        self.cluster = cluster
        self.kubernetes = kubernetes
        kubernetes.on_deleted = self._end
        self.gcs = GcsClient(address=cluster.address)
        self.steps = Steps(kubernetes, self.gcs, patch)
        self.hosts: dict[str, VirtualHost] = {}
        #: What the autoscaler told last; None if its step failed.
        self.told: Any = None
        #: How many pods may begin to run in one round; None = as many as wait.
        self.at_once: int | None = None

    def round(self) -> None:
        """Let the autoscaler, the operator and the nodes each act once."""
        self.told = self.steps.step()
        self.kubernetes.operate()
        waiting = self.kubernetes.waiting()[: self.at_once]
        for replica in dict.fromkeys(pod.replica for pod in waiting):
            self._start([pod for pod in waiting if pod.replica == replica])
        self.cluster.wait_for_nodes()
        for pod in waiting:
            pod.running = True
        time.sleep(_ROUND_S)

    def until(self, condition: Callable[[], object]) -> None:
        """Make rounds until something is so."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"not in time: {self}"
            self.round()

    def rounds(self, count: int) -> None:
        """Make some rounds, for what must not happen."""
        for _ in range(count):
            self.round()

    def alive(self) -> int:
        """How many worker nodes Ray has."""
        return sum(row["Alive"] for row in ray.nodes()) - 1

    def __repr__(self) -> str:
        pods = [f"{pod.name} {'runs' if pod.running else 'waits'}" for pod in self.kubernetes.pods.values()]
        return f"asked {self.kubernetes.asked}, pods {pods}, groups {waiting_groups()}, told {self.told}"

    def _start(self, pods: list[Pod]) -> None:
        replica, env = pods[0].replica, {"RAY_NODE_TYPE_NAME": pods[0].group}
        known = {slice_.name: slice_ for slice_ in self.cluster.slices}
        if replica not in known:
            first = {pod.index for pod in pods}
            missing = {pod.index for pod in self.kubernetes.members(replica)} - first
            made = self.cluster.add_slice("v4-16", name=replica, missing=missing, env=env, wait=False)
            self.hosts.update((host.name, host) for host in made.hosts)
        else:
            for pod in pods:
                own = {**env, "RAY_CLOUD_INSTANCE_ID": pod.name}
                self.hosts[pod.name] = self.cluster.add_host(known[replica], pod.index, env=own)

    def _end(self, pod: Pod) -> None:
        host = self.hosts.pop(pod.name, None)
        if host is not None:
            self.cluster.kill_host(host)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait while nothing but the fleet acts."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not in time: {waiting_groups()}"
        time.sleep(0.05)


def waiting_groups() -> list[str]:
    """The names of the placement groups that are not removed."""
    rows = ray.util.placement_group_table().values()
    return [f"{row['name']} {row['state']}" for row in rows if row["state"] != "REMOVED"]
