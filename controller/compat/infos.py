"""What callers are told of slices and hosts: values with the old names, made from the fleet's status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.model.status import SliceStatus

ActorT = TypeVar("ActorT")
InfoT = TypeVar("InfoT")

#: States in which a slice takes work.
SERVING = frozenset({"ready", "running"})


@dataclass(frozen=True)
class SliceInfo:
    """One slice."""

    #: The TPU slice's name; for other shapes the slice's id.
    slice_name: str
    num_hosts: int
    #: Address of its first host.
    ip_address: str
    num_accelerators_per_host: int
    #: Ray node ids by host rank.
    node_ids: tuple[str, ...] | None = None
    #: By host rank: `ip`, `node_id`, `pod_name`, `num_devices`, `num_hosts`.
    host_infos: tuple[Mapping[str, Any], ...] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class HostInfo:
    """One host, as it was when it was asked for."""

    #: Host rank, which is the TPU worker id.
    host_id: int
    slice_name: str
    num_devices: int | None
    healthy: bool
    failed: bool
    node_id: str | None = None


@dataclass(frozen=True)
class ActorPoolMember(Generic[ActorT, InfoT]):
    """A slice of the pool: its handle, and what was known of it when it joined."""

    actor: ActorT
    actor_info: InfoT


def slice_info(row: SliceStatus, shape: SliceShape) -> SliceInfo:
    """Describe a slice all of whose hosts have answered."""
    name = row.place or row.id
    devices = shape.devices_per_host.count
    hosts = tuple(
        {
            "ip": host.address,
            "node_id": host.node_id,
            "pod_name": name,
            "num_devices": devices,
            "num_hosts": shape.hosts,
        }
        for host in row.hosts
    )
    node_ids = tuple(host.node_id or "" for host in row.hosts)
    return SliceInfo(name, shape.hosts, row.hosts[0].address, devices, node_ids, hosts)


def host_info(row: SliceStatus, rank: int, shape: SliceShape) -> HostInfo:
    """Describe one host; it is healthy as long as its slice takes work, whose fate it shares."""
    healthy = row.state in SERVING
    devices = shape.devices_per_host.count
    return HostInfo(rank, row.place or row.id, devices, healthy, not healthy, row.hosts[rank].node_id)
