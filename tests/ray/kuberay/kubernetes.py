"""A Kubernetes API server in memory that knows one RayCluster, with an operator that acts as KubeRay's does.

It answers what Ray's autoscaler asks, through the interface by which Ray itself lets its client be replaced. What goes
in and out passes through JSON. The operator follows `reconcileMultiHostWorkerGroup` of KubeRay, as of August 2026: a
replica is made, healed and deleted as a whole, and only `workersToDelete` takes one away.
"""

import copy
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from ray.autoscaler._private.kuberay.node_provider import IKubernetesHttpApiClient

CLUSTER = "demo"
NAMESPACE = "tests"
HEAD_GROUP = "headgroup"


@dataclass(frozen=True)
class Group:
    """A worker group of the RayCluster."""

    name: str
    hosts: int
    max_replicas: int
    #: What the container of each pod may use.
    limits: dict[str, str]
    #: GKE's name for the topology of a TPU group, and for its accelerator.
    topology: str = ""
    accelerator: str = "tpu-v4-podslice"
    min_replicas: int = 0

    def spec(self) -> dict[str, Any]:
        """Return the group as it stands in the RayCluster."""
        selector = {}
        if self.topology:
            selector["cloud.google.com/gke-tpu-accelerator"] = self.accelerator
            selector["cloud.google.com/gke-tpu-topology"] = self.topology
        return {
            "groupName": self.name,
            "replicas": self.min_replicas,
            "minReplicas": self.min_replicas,
            "maxReplicas": self.max_replicas,
            "numOfHosts": self.hosts,
            "rayStartParams": {},
            "template": {
                "spec": {"containers": [{"resources": {"limits": self.limits}}], "nodeSelector": selector},
            },
            "scaleStrategy": {"workersToDelete": []},
        }


@dataclass
class Pod:
    """One pod: a host, once it runs."""

    name: str
    group: str
    #: The replica that it is part of, and which host of it; the head has none.
    replica: str = ""
    index: int = 0
    running: bool = False
    failed: bool = False

    def resource(self) -> dict[str, Any]:
        """Return the pod as the API server shows it."""
        kind = "head" if self.group == HEAD_GROUP else "worker"
        state = "terminated" if self.failed else "running" if self.running else "waiting"
        labels = {"ray.io/cluster": CLUSTER, "ray.io/node-type": kind, "ray.io/group": self.group}
        if self.replica:
            labels["ray.io/worker-group-replica-name"] = self.replica
        return {
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"containers": [{"resources": {}}]},
            "status": {"containerStatuses": [{"state": {state: {}}}]},
        }


@dataclass
class Kubernetes(IKubernetesHttpApiClient):  # type: ignore[misc]
    """The API server and the operator; the autoscaler gets nothing else."""

    groups: list[Group]
    #: Called with every pod that goes.
    on_deleted: Callable[[Pod], None] = lambda _: None
    idle_timeout_s: float = 60.0
    reachable: bool = True
    pods: dict[str, Pod] = field(default_factory=dict)
    #: By how many replicas a group was to grow, one entry a patch.
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self.pods["head"] = Pod("head", HEAD_GROUP, running=True)
        head = {"rayStartParams": {"num-cpus": "0"}, "template": {"spec": {"containers": [{"resources": {}}]}}}
        self._cluster = {
            "metadata": {"name": CLUSTER, "namespace": NAMESPACE, "resourceVersion": "1"},
            "spec": {
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": self.idle_timeout_s},
                "headGroupSpec": head,
                "workerGroupSpecs": [group.spec() for group in self.groups],
            },
        }

    # What the autoscaler asks.

    def get(self, path: str) -> Any:
        self._check(path)
        if path == f"rayclusters/{CLUSTER}":
            return json.loads(json.dumps(self._cluster))
        if path.startswith("pods?labelSelector="):
            items = [pod.resource() for pod in self.pods.values()]
            return json.loads(json.dumps({"metadata": {"resourceVersion": "1"}, "items": items}))
        raise _error(404, path)

    def patch(self, path: str, payload: Any, content_type: str = "application/json-patch+json") -> Any:
        self._check(path)
        if path != f"rayclusters/{CLUSTER}" or content_type != "application/json-patch+json":
            raise _error(404, path)
        changed = copy.deepcopy(self._cluster)
        for operation in json.loads(json.dumps(payload)):
            _apply(changed, operation)
        for group, spec in zip(self.groups, changed["spec"]["workerGroupSpecs"], strict=True):
            more = spec["replicas"] - self.replicas(group.name)
            if more > 0:
                self.asked.append((group.name, more))
        self._cluster = changed
        return self.get(path)

    def delete(self, path: str) -> Any:
        raise _error(405, path)

    # What a test looks at and does.

    def replicas(self, group: str) -> int:
        """How many replicas of a group the RayCluster asks for."""
        return int(self._spec(group)["replicas"])

    def doomed(self, group: str) -> set[str]:
        """The pods of a group that the autoscaler wants gone."""
        return set(self._spec(group)["scaleStrategy"]["workersToDelete"])

    def waiting(self) -> list[Pod]:
        """The pods that wait to run, oldest first."""
        return [pod for pod in self.pods.values() if not pod.running and not pod.failed]

    def members(self, replica: str) -> list[Pod]:
        """The pods of a replica."""
        return [pod for pod in self.pods.values() if pod.replica == replica]

    def evict(self, pod: Pod) -> None:
        """Take one pod away, as for a node that goes."""
        del self.pods[pod.name]
        self.on_deleted(pod)

    def operate(self) -> None:
        """Let the operator act once: it either takes pods away or makes some."""
        for group in self.groups:
            self._operate(group)

    # The operator.

    def _operate(self, group: Group) -> None:
        replicas: dict[str, list[Pod]] = {}
        for pod in self.pods.values():
            if pod.group == group.name:
                replicas.setdefault(pod.replica, []).append(pod)
        spec = self._spec(group.name)
        doomed = self.doomed(group.name)
        broken = [
            pods
            for pods in replicas.values()
            if len(pods) < group.hosts or any(pod.failed or pod.name in doomed for pod in pods)
        ]
        if broken:
            for pod in itertools.chain.from_iterable(broken):
                self.evict(pod)
            return
        for _ in range(max(spec["replicas"], group.min_replicas) - len(replicas)):
            replica = f"{group.name}-{next(self._numbers)}"
            for index in range(group.hosts):
                pod = Pod(f"{replica}-{index}", group.name, replica, index)
                self.pods[pod.name] = pod

    def _spec(self, group: str) -> dict[str, Any]:
        specs: list[dict[str, Any]] = self._cluster["spec"]["workerGroupSpecs"]
        return next(spec for spec in specs if spec["groupName"] == group)

    def _check(self, path: str) -> None:
        if not self.reachable:
            raise requests.ConnectionError(f"connection refused: {path}")


def _apply(document: Any, operation: dict[str, Any]) -> None:
    assert operation["op"] == "replace", operation
    *parents, last = operation["path"].strip("/").split("/")
    for key in parents:
        document = document[int(key)] if isinstance(document, list) else document[key]
    assert last in document, operation
    document[last] = operation["value"]


def _error(status: int, path: str) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status}: {path}", response=response)
