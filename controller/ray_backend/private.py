"""All of Ray that has no public API, in one place; each piece degrades to "unknown" or to a clear refusal.

Checked against Ray 2.60.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import ray
import structlog

log = structlog.get_logger(__name__)

_warned: set[str] = set()

#: `DRAIN_NODE_REASON_PREEMPTION` in Ray's autoscaler.proto.
_PREEMPTION = 2
#: How long a GCS that was connected to may take to answer whether it takes this process, seconds.
_ANSWER_S = 5.0
#: What KubeRay calls the group of the head, and nobody else does.
_KUBERAY_HEAD_GROUP = "headgroup"
#: How long it may take to tell of the autoscaler, seconds.
_STATUS_S = 5.0


class RemoteParts(NamedTuple):
    """What a Ray remote function is made of."""

    function: Any
    #: The options of its decorator, as far as they were given.
    options: Mapping[str, Any]


class Autoscaler(NamedTuple):
    """What Ray's autoscaler told last, if it is of the second version."""

    #: Whether the cluster is KubeRay's: there it starts hosts only as many at a time as make a whole replica.
    by_replica: bool
    #: The newest state of the cluster that it has taken in, as a number that grows; 0 = it has told nothing, as one of
    #: the first version does.
    seen: int
    #: Nodes that it asked for, and nodes that have been given to it and have not joined, by the name of their type.
    requested: Mapping[str, int]
    pods: Mapping[str, int]
    #: Nodes that have joined, as of the time of reading.
    living: frozenset[str]
    #: Ids of placement groups that no node type can meet.
    infeasible: frozenset[str]


def autoscaler() -> Autoscaler | None:
    """Return what the autoscaler told last; None if that cannot be known."""
    try:
        from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
        from ray.experimental.internal_kv import internal_kv_get_gcs_client

        answer = internal_kv_get_gcs_client().get_cluster_status(timeout_s=_STATUS_S)
        return read_autoscaler(GetClusterStatusReply.FromString(answer))
    except (ImportError, AttributeError, TypeError) as error:
        _unknown("autoscaler", error)
        return None


def read_autoscaler(reply: Any) -> Autoscaler:
    """Read a `GetClusterStatusReply`."""
    state, nodes = reply.autoscaling_state, reply.cluster_resource_state.node_states
    requested: Counter[str] = Counter()
    for row in state.pending_instance_requests:
        requested[row.ray_node_type_name] += row.count
    return Autoscaler(
        by_replica=any(node.ray_node_type_name == _KUBERAY_HEAD_GROUP for node in nodes),
        seen=state.last_seen_cluster_resource_state_version,
        requested=requested,
        pods=Counter(row.ray_node_type_name for row in state.pending_instances),
        living=frozenset(node.node_id.hex() for node in nodes),
        infeasible=frozenset(row.details.partition(":")[0] for row in state.infeasible_gang_resource_requests),
    )


def draining_nodes() -> Mapping[str, float]:
    """Return node id -> deadline of nodes that Ray is draining, epoch seconds, 0.0 = no deadline; empty if unknown.

    Dead nodes are not among them, nor is the reason.
    """
    try:
        from ray._private.state import state

        draining = state.get_draining_nodes()
    except (ImportError, AttributeError, TypeError) as error:
        _unknown("draining_nodes", error)
        return {}
    return {node: (deadline_ms or 0) / 1000 for node, deadline_ms in draining.items()}


def drain_node(address: str, node_id: str, deadline_epoch_s: float | None) -> str | None:
    """Ask the cluster at `address` to drain a node, as for a preemption; return why it refuses, or None.

    Ray kills nothing at the deadline; an idle node ends at once.
    """
    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        deadline_ms = 0 if deadline_epoch_s is None else int(deadline_epoch_s * 1000)
        accepted, why = GcsClient(address=address).drain_node(node_id, _PREEMPTION, "to be taken away", deadline_ms)
    except (ImportError, AttributeError, TypeError) as error:
        return f"Ray {describe_version()} does not take it: {error!r}"
    return None if accepted else why or "refused"


def available_resources() -> Mapping[str, Mapping[str, float]] | None:
    """Return node id -> resources that are free there now; None if unknown."""
    try:
        from ray._private.state import available_resources_per_node

        found: Mapping[str, Mapping[str, float]] = available_resources_per_node()
    except (ImportError, AttributeError, TypeError) as error:
        _unknown("available_resources", error)
        return None
    return found


def local_cluster() -> str | None:
    """Return the address of the cluster that Ray finds on this machine; None if it finds none, or does not tell."""
    try:
        from ray._private.services import canonicalize_bootstrap_address

        found: str | None = canonicalize_bootstrap_address("auto")
    except (ImportError, AttributeError, TypeError, ConnectionError) as error:
        log.debug("no_local_cluster", cause=repr(error))
        return None
    return found


def takes_us(address: str) -> bool | None:
    """Whether the GCS at an address takes this process, with the token that it has or without; None if unknown.

    Raises:
        ray.exceptions.RayError: no GCS answers there.

    """
    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        GcsClient(address=address).check_alive([], _ANSWER_S)
    except ray.exceptions.AuthenticationError as error:
        log.debug("token_refused", address=address, cause=repr(error))
        return False
    except (ImportError, AttributeError, TypeError) as error:
        _unknown("takes_us", error)
        return None
    return True


def client_connected() -> bool:
    """Whether this process is connected through Ray Client; False if that cannot be known."""
    try:
        from ray.util.client import ray as client

        return bool(client.is_connected())
    except (ImportError, AttributeError) as error:
        _unknown("client_connected", error)
        return False


def is_worker() -> bool:
    """Whether this process is one of Ray's workers, which run actors and tasks; False if that cannot be known."""
    try:
        from ray._private.worker import WORKER_MODE, global_worker

        return bool(global_worker.mode == WORKER_MODE)
    except (ImportError, AttributeError) as error:
        _unknown("is_worker", error)
        return False


def remote_parts(fn: Any) -> RemoteParts | None:
    """Take a Ray remote function apart; None if it is none, or if Ray does not show its parts."""
    try:
        from ray.remote_function import RemoteFunction
    except ImportError as error:
        _unknown("remote_parts", error)
        return None
    if not isinstance(fn, RemoteFunction):
        return None
    function = getattr(fn.remote, "__wrapped__", None) or getattr(fn, "_function", None)
    options = getattr(fn, "_default_options", None)
    if function is None or options is None:
        _unknown("remote_parts", AttributeError("the parts of a remote function"))
        return None
    return RemoteParts(function, dict(options))


def describe_version() -> str:
    """Return the version of the Ray that is installed here."""
    return str(ray.__version__)


def _unknown(what: str, error: Exception) -> None:
    """Say once that this Ray does not tell something."""
    if what not in _warned:
        _warned.add(what)
        log.warning("ray_does_not_tell", what=what, version=describe_version(), cause=repr(error))
