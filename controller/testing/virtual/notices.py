"""Give hosts of a virtual cluster notice, as the cloud or Ray would, and take it back."""

import time
from collections.abc import Sequence
from typing import Literal, get_args

from sliceform.controller.testing.virtual.host import VirtualClusterError, VirtualHost
from sliceform.controller.testing.virtual.metadata import MAINTENANCE, PREEMPTED, MetadataServers

#: How hosts learn of it: two keys of the metadata server, and Ray.
Via = Literal["preempted", "maintenance", "drain"]

_SAID = {"preempted": (PREEMPTED, "TRUE"), "maintenance": (MAINTENANCE, "TERMINATE_ON_HOST_MAINTENANCE")}


def give(
    hosts: Sequence[VirtualHost], via: Via, metadata: MetadataServers, address: str, deadline_s: float | None
) -> None:
    """Announce the end of hosts; see `VirtualCluster.notice`."""
    _check(via)
    if via == "drain":
        deadline = None if deadline_s is None else time.time() + deadline_s
        for host in hosts:
            _drain(address, host, deadline)
        return
    if deadline_s is not None:
        raise ValueError(f"deadline_s is for via='drain': what comes via {via!r} has the deadline that GCE gives")
    key, value = _SAID[via]
    for host in hosts:
        metadata.set(host.name, key, value)


def take_back(hosts: Sequence[VirtualHost], via: Via, metadata: MetadataServers) -> None:
    """Withdraw a notice; see `VirtualCluster.withdraw`."""
    _check(via)
    if via == "drain":
        raise ValueError("Ray does not take a drain back")
    for host in hosts:
        metadata.set(host.name, _SAID[via][0], None)


def _check(via: str) -> None:
    if via not in get_args(Via):
        raise ValueError(f"via must be one of {get_args(Via)}, not {via!r}")


def _drain(address: str, host: VirtualHost, deadline_epoch_s: float | None) -> None:
    from sliceform.controller.ray_backend.private import drain_node

    refusal = drain_node(address, host.node_id, deadline_epoch_s)
    if refusal is not None:
        raise VirtualClusterError(f"virtual host {host.name} cannot be drained: {refusal}")
