"""Handles of slices and hosts: what old code takes for actor handles, `handle.method.remote(...)` and all.

They answer in the driver's process, where the fleet lives; the references that they return are Ray's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from sliceform.controller.compat.calls import make_call
from sliceform.controller.compat.desk import Desk, find
from sliceform.controller.compat.infos import SERVING, ActorPoolMember, HostInfo, host_info, slice_info
from sliceform.controller.errors import ConfigurationError, FleetClosedError
from sliceform.controller.model.status import SliceStatus


class Remote:
    """A bound method that is called as `.remote(...)`."""

    def __init__(self, method: Callable[..., Any]) -> None:
        """Take the method."""
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it; return a reference to what it returns."""
        return self._method(*args, **kwargs)


class remote:  # noqa: N801 - used as a decorator
    """Make a method one that is called as `handle.method.remote(...)`."""

    def __init__(self, method: Callable[..., Any]) -> None:
        """Take the method; it returns a reference."""
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, handle: Any, _owner: type) -> Any:
        """Bind it."""
        return self if handle is None else Remote(self._method.__get__(handle))


class _Handle:
    """What handles of both kinds have in common."""

    def __init__(self, token: str, slice_id: str) -> None:
        self._token = token
        self.slice_id = slice_id

    def _desk(self) -> Desk:
        desk = find(self._token)
        if desk is None:
            raise FleetClosedError(
                f"this handle of {self.slice_id} is of no use here: its pool was drained, or lives in another process"
            )
        return desk

    def _row(self) -> SliceStatus | None:
        """Return the slice, if it takes work."""
        row = self._desk().row(self.slice_id)
        return row if row is not None and row.state in SERVING else None

    @remote
    def healthy(self) -> Any:
        """Whether the slice takes work; its hosts share its fate."""
        return self._desk().refs.value(self._row() is not None)

    @remote
    def is_being_preempted(self) -> Any:
        """Whether a host of the slice was noticed or lost."""
        row = self._desk().row(self.slice_id)
        return self._desk().refs.value(row is None or row.state == "preempted")

    @remote
    def shutdown(self) -> Any:
        """Let the slice go, whole, after its work had time to stop; the fleet replaces it."""
        return self._desk().drain(self.slice_id)


class HostHandle(_Handle):
    """One host of a slice."""

    def __init__(self, token: str, slice_id: str, rank: int) -> None:
        """Take which pool, slice and host rank."""
        super().__init__(token, slice_id)
        self.rank = rank

    def __repr__(self) -> str:
        return f"<HostHandle {self.slice_id}/{self.rank}>"

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, int]]:
        """Travel by name."""
        return type(self), (self._token, self.slice_id, self.rank)

    @remote
    def get_info(self) -> Any:
        """Return the host's `HostInfo`, as it stands now."""
        desk = self._desk()
        row = desk.row(self.slice_id)
        return desk.failed(self.slice_id) if row is None else desk.refs.value(_host(desk, row, self.rank))

    @remote
    def run_remote_fn(self, remote_fn: Any, **call: Any) -> Any:
        """Run a function in a fresh process on this host; returns a reference to the reference of its value.

        What the host has not answered yet is cancelled. Takes the arguments of `calls.make_call`.
        """
        desk = self._desk()
        made = make_call(desk.fleet.shape, remote_fn, **call)
        if self._row() is None:
            return desk.failed(self.slice_id)
        return desk.refs.hand_one(desk.call(self.slice_id, self.rank, made).ref)

    @remote
    def cancel_current(self) -> Any:
        """End what runs on the host, and what runs with it on the other hosts of its slice."""
        return self._desk().cancel(self.slice_id, self.rank)


class SliceHandle(_Handle):
    """One slice."""

    def __repr__(self) -> str:
        return f"<SliceHandle {self.slice_id}>"

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """Travel by name."""
        return type(self), (self._token, self.slice_id)

    def hosts(self) -> list[HostHandle]:
        """Return the handles of its hosts, by host rank."""
        hosts = range(self._desk().fleet.shape.hosts)
        return [HostHandle(self._token, self.slice_id, rank) for rank in hosts]

    def call_all(self, remote_fn: Any, **call: Any) -> list[Any] | None:
        """Run a function on every host; return references to the values by host rank, None if it takes no work."""
        desk = self._desk()
        made = make_call(desk.fleet.shape, remote_fn, **call)
        if self._row() is None:
            return None
        return [desk.call(self.slice_id, rank, made).ref for rank in range(desk.fleet.shape.hosts)]

    @remote
    def get_info(self) -> Any:
        """Return the slice's `SliceInfo`."""
        desk, row = self._desk(), self._row()
        return desk.failed(self.slice_id) if row is None else desk.refs.value(slice_info(row, desk.fleet.shape))

    @remote
    def prepare_hosts(self) -> Any:
        """Do nothing for a slice that takes work: its hosts are ready."""
        desk = self._desk()
        return desk.failed(self.slice_id) if self._row() is None else desk.refs.value(None)

    @remote
    def ensure_host_pool(self, desired_hosts: int | None = None) -> Any:
        """Do nothing for a slice that takes work: its hosts are ready.

        Raises:
            ConfigurationError: fewer or more hosts than the slice has are asked for.

        """
        desk = self._desk()
        hosts = desk.fleet.shape.hosts
        if desired_hosts not in {None, hosts}:
            raise ConfigurationError(f"a slice of this pool has {hosts} hosts and is used whole, not {desired_hosts}")
        return desk.failed(self.slice_id) if self._row() is None else desk.refs.value(None)

    @remote
    def get_all_actors_in_pool(self) -> Any:
        """Return the handles of its hosts, by host rank."""
        return self._desk().refs.value(self.hosts())

    @remote
    def get_all_pool_members(self) -> Any:
        """Return its hosts with their infos, by host rank."""
        desk, row = self._desk(), self._row()
        if row is None:
            return desk.failed(self.slice_id)
        return desk.refs.value([ActorPoolMember(host, _host(desk, row, host.rank)) for host in self.hosts()])

    @remote
    def run_remote_fn(self, remote_fn: Any, runtime_env: Any = None, env: Any = None, **call: Any) -> Any:
        """Run a function in a fresh process on every host; returns a reference to the references of the values."""
        desk = self._desk()
        refs = self.call_all(remote_fn, runtime_env=runtime_env, env=env, **call)
        return desk.failed(self.slice_id) if refs is None else desk.refs.hand(refs)


def _host(desk: Desk, row: SliceStatus, rank: int) -> HostInfo:
    return host_info(row, rank, desk.fleet.shape)
