"""Ray's GCS without processes: nodes, placement groups, and what the autoscaler and the backend ask of it."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated import autoscaler_pb2 as messages
from ray.core.generated.common_pb2 import LabelSelectorOperator

from sliceform.controller.model.events import Node
from sliceform.controller.model.selectors import matches
from sliceform.controller.ray_backend import private

from .kubernetes import HEAD_GROUP, Pod

_ANTI = ResourceRequestUtil.PlacementConstraintType.ANTI_AFFINITY
_IN, _NOT_IN = LabelSelectorOperator.LABEL_OPERATOR_IN, LabelSelectorOperator.LABEL_OPERATOR_NOT_IN


class _Id:
    def __init__(self, number: int) -> None:
        self._hex = f"{number:036x}"

    def hex(self) -> str:
        return self._hex


@dataclass(eq=False)
class _Group:
    id: _Id
    name: str
    bundles: list[dict[str, float]]
    strategy: str
    selectors: list[dict[str, str]]
    #: Node by bundle, once it is placed.
    nodes: list[str] = field(default_factory=list)
    removed: bool = False
    done: Future[Any] = field(default_factory=Future)

    def ready(self) -> Future[Any]:
        return self.done


@dataclass(eq=False)
class _Host:
    node: Node
    pod: str
    kind: str
    free: dict[str, float]
    idle_since: float
    alive: bool = True
    draining: bool = False


class SimulatedGcs:
    """Nodes and placement groups, and what the autoscaler asks of a GCS."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.hosts: dict[str, _Host] = {}
        self.groups: list[_Group] = []
        #: What some other program asked for by `request_resources`.
        self.constraint: messages.ClusterResourceConstraint | None = None
        self.state = messages.AutoscalingState()
        self._numbers = itertools.count(1)
        self._version = 0
        self.add(Pod("head", HEAD_GROUP), {}, {})

    # Ray's side.

    def get_cluster_resource_state(self) -> bytes:
        self._version += 1
        state = messages.ClusterResourceState(cluster_resource_state_version=self._version)
        for host in self.hosts.values():
            state.node_states.append(self._node_state(host))
        for group in self.groups:
            if not group.nodes:
                state.pending_gang_resource_requests.append(_gang(group))
        if self.constraint is not None:
            state.cluster_resource_constraints.append(self.constraint)
        return messages.GetClusterResourceStateReply(cluster_resource_state=state).SerializeToString()

    def report_autoscaling_state(self, state: bytes) -> None:
        self.state = messages.AutoscalingState.FromString(state)

    def drain_node(self, node_id: str, **_: Any) -> tuple[bool, str]:
        host = self.hosts[node_id]
        if self._is_idle(host):
            host.draining = True
            return True, ""
        return False, "it is busy"

    # Ours.

    def add(self, pod: Pod, resources: dict[str, float], labels: dict[str, str]) -> None:
        """A host joins."""
        node_id = f"{next(self._numbers):056x}"
        labels = {**labels, "ray.io/node-id": node_id, "ray.io/node-group": pod.group}
        worker_id = labels.get("ray.io/tpu-worker-id")
        node = Node(
            id=node_id,
            alive=True,
            place=labels.get("ray.io/tpu-slice-name"),
            worker_id=None if worker_id is None else int(worker_id),
            pod_type=labels.get("ray.io/tpu-pod-type"),
            address="",
            death="",
            drain_epoch_s=None,
            topology=None,
            accelerator=None,
            resources=resources,
            labels=labels,
        )
        self.hosts[node_id] = _Host(node, pod.name, pod.group, dict(resources), self.now)

    def kill(self, pod: Pod) -> None:
        """The host of a pod dies, if it had joined."""
        for host in self.hosts.values():
            if host.pod == pod.name and host.alive:
                host.alive = False
                for group in self.groups:
                    if host.node.id in group.nodes:
                        self._free(group)

    def place(self) -> None:
        """End what drains, and place what can be placed, as the GCS does all the time."""
        for host in self.hosts.values():
            if host.draining and host.alive:
                host.alive = False
        for group in [group for group in self.groups if not group.nodes]:
            nodes = self._fit(group)
            if nodes:
                group.nodes = nodes
                for node, bundle in zip(nodes, group.bundles, strict=True):
                    _take(self.hosts[node].free, bundle, -1)
                group.done.set_result(None)
        for host in self.hosts.values():
            if not self._is_idle(host):
                host.idle_since = self.now

    def create(self, bundles: list[dict[str, float]], strategy: str, name: str, bundle_label_selector: Any) -> _Group:
        """Take the place of `ray.util.placement_group`."""
        selectors = bundle_label_selector or [{}] * len(bundles)
        group = _Group(_Id(next(self._numbers)), name, bundles, strategy, selectors)
        self.groups.append(group)
        # At once, and long before anybody is told.
        self.place()
        return group

    def remove(self, group: _Group) -> None:
        """Take the place of `ray.util.remove_placement_group`."""
        if group in self.groups:
            self._free(group)
            self.groups.remove(group)
        group.removed = True

    def row(self, group: _Group) -> dict[str, Any]:
        """Take the place of the group's row in the table."""
        state = "REMOVED" if group.removed else "CREATED" if group.nodes else "PENDING"
        return {"state": state, "bundles_to_node_id": dict(enumerate(group.nodes))}

    def nodes(self) -> dict[str, Node]:
        """The node table as the backend knows it."""
        return {
            id_: host.node._replace(alive=host.alive, drain_epoch_s=0.0 if host.draining and host.alive else None)
            for id_, host in self.hosts.items()
        }

    def available(self) -> dict[str, dict[str, float]]:
        """Take the place of Ray's free resources by node."""
        return {id_: dict(host.free) for id_, host in self.hosts.items() if host.alive}

    def autoscaler(self) -> private.Autoscaler:
        """Take the place of what Ray's autoscaler told last, which is read as the backend reads it."""
        resources = messages.GetClusterResourceStateReply.FromString(self.get_cluster_resource_state())
        reply = messages.GetClusterStatusReply(
            autoscaling_state=self.state, cluster_resource_state=resources.cluster_resource_state
        )
        return private.read_autoscaler(reply)

    def _is_idle(self, host: _Host) -> bool:
        return host.free == host.node.resources

    def _free(self, group: _Group) -> None:
        for node, bundle in zip(group.nodes, group.bundles, strict=False):
            _take(self.hosts[node].free, bundle, 1)
        group.nodes = []
        if group.done.done():
            group.done = Future()

    def _fit(self, group: _Group) -> list[str]:
        taken: list[str] = []
        free = {id_: dict(host.free) for id_, host in self.hosts.items() if host.alive and not host.draining}
        for bundle, selector in zip(group.bundles, group.selectors, strict=True):
            for id_, has in free.items():
                if group.strategy == "STRICT_SPREAD" and id_ in taken:
                    continue
                if all(has.get(name, 0) >= amount for name, amount in bundle.items()) and matches(
                    self.hosts[id_].node.labels, selector
                ):
                    _take(has, bundle, -1)
                    taken.append(id_)
                    break
            else:
                return []
        return taken

    def _node_state(self, host: _Host) -> messages.NodeState:
        idle = self._is_idle(host)
        status = messages.NodeStatus.IDLE if idle else messages.NodeStatus.RUNNING
        if host.draining:
            status = messages.NodeStatus.DRAINING
        state = messages.NodeState(
            node_id=bytes.fromhex(host.node.id),
            instance_id=host.pod,
            ray_node_type_name=host.kind,
            status=status if host.alive else messages.NodeStatus.DEAD,
            idle_duration_ms=int((self.now - host.idle_since) * 1000) if idle else 0,
            labels=host.node.labels,
        )
        state.total_resources.update(host.node.resources)
        state.available_resources.update(host.free)
        if host.kind == HEAD_GROUP:
            state.total_resources["node:__internal_head__"] = 1
        return state


def _gang(group: _Group) -> messages.GangResourceRequest:
    spread = [(_ANTI, f"_PG_{group.id.hex()}", group.id.hex())] if group.strategy == "STRICT_SPREAD" else None
    gang = messages.GangResourceRequest(details=f"{group.id.hex()}:{group.strategy}|PENDING")
    requests = [
        ResourceRequestUtil.make(bundle, spread, [list(_constraints(selector))] if selector else None)
        for bundle, selector in zip(group.bundles, group.selectors, strict=True)
    ]
    gang.requests.extend(requests)
    gang.bundle_selectors.add().resource_requests.extend(requests)
    return gang


def _constraints(selector: dict[str, str]) -> Iterator[tuple[str, int, list[str]]]:
    for label, condition in selector.items():
        operator = _NOT_IN if condition.startswith("!") else _IN
        yield label, operator, condition.removeprefix("!").removeprefix("in(").removesuffix(")").split(",")


def _take(free: dict[str, float], bundle: dict[str, float], sign: int) -> None:
    for name, amount in bundle.items():
        free[name] = free.get(name, 0) + sign * amount
