"""A real Ray cluster on this machine whose hosts look like TPU VMs.

`VirtualCluster` starts one process of its own per host, side by side, each of which starts a raylet
with the resources, `ray.io/tpu-*` labels and `TPU_*` variables of a host of a TPU slice. Killing or
freezing all processes of a host is then a faithful loss of that host. Nothing outlives the cluster,
not even when the process that owns it is killed: a small warden process clears up after it.

Linux only. Needs no TPU and no network but the loopback interface.
"""

import os
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self
from uuid import uuid4

from sliceform.controller.model.topology import PodType, describe
from sliceform.controller.testing.virtual import processes
from sliceform.controller.testing.virtual.host import VirtualClusterError, VirtualHost, VirtualSlice
from sliceform.controller.testing.virtual.lifetime import destroy, disconnect, short_directory, start_warden
from sliceform.controller.testing.virtual.metadata import MetadataServers
from sliceform.controller.testing.virtual.notices import Via, give, take_back
from sliceform.controller.testing.virtual.plan import head_params, ip_of, start_order, tpu_variables
from sliceform.controller.testing.virtual.starter import Starter

__all__ = ["VirtualCluster", "VirtualClusterError", "VirtualHost", "VirtualSlice"]

_CLEAN_END_S = 10.0


class VirtualCluster:
    """A Ray cluster of virtual hosts on this machine; a context manager.

    The head (a raylet with `head_cpus` CPUs and the GCS, no dashboard) runs when the constructor
    returns. Connect with `ray.init(address=cluster.address)`; several clusters may run at once.

    Args:
        head_cpus: CPUs of the head, where the driver connects. They are numbers to Ray, not cores.
        num_cpus: CPUs of each other host, unless `add_hosts` says otherwise.
        env: variables for all hosts, and thus for all that runs on them.
        system_config: Ray's `_system_config`; by default Ray's own settings.
        object_store_mb: size of each host's object store, in MiB (Ray wants at least 75).
        metrics: whether hosts export Ray's metrics, which needs `ray[default]`. It makes every host slower to start.
        ip: address of all hosts, one of this machine's but `::1`, which Ray cannot use; by default Ray's choice.
        start_timeout_s: how long a host may take to register, in seconds.

    Raises:
        VirtualClusterError: the head did not start; the message ends with its log.
    """

    def __init__(
        self,
        head_cpus: int = 2,
        *,
        num_cpus: int = 4,
        env: Mapping[str, str] | None = None,
        system_config: Mapping[str, Any] | None = None,
        object_store_mb: int = 100,
        metrics: bool = False,
        ip: str | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        self._num_cpus = num_cpus
        self._start_timeout_s = start_timeout_s
        self._id = uuid4().hex[:12]
        self._directory = short_directory()
        self._hosts: list[VirtualHost] = []
        self._slices: dict[str, VirtualSlice] = {}
        warden = start_warden(self._id, self._directory)
        self._metadata = MetadataServers()
        self._starter = Starter(
            self._id,
            self._directory,
            self._hosts,
            self._metadata,
            env or {},
            object_store_mb=object_store_mb,
            metrics=metrics,
        )
        # Close, interpreter exit and garbage collection all end in this one call.
        self._finalizer = weakref.finalize(
            self, destroy, self._id, self._directory, self._hosts, warden, metadata=self._metadata, owner=os.getpid()
        )
        try:
            params = head_params(head_cpus, ip=ip, directory=self._directory, system_config=system_config)
            head = self._starter.launch("head", params, head=True)
            head.wait_ready(start_timeout_s)
        except BaseException:
            self._finalizer()
            raise
        self._starter.address = head.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<VirtualCluster {self._starter.address or 'closed'}, {len(self._hosts)} hosts>"

    @property
    def address(self) -> str:
        """What `ray.init(address=...)` takes to connect to this cluster."""
        return self._starter.address

    @property
    def mark(self) -> str:
        """What all of its processes carry in the variable `SLICEFORM_VIRTUAL_HOST`, up to the slash."""
        return f"{self._id}/"

    @property
    def head(self) -> VirtualHost:
        """The host that runs the GCS and serves the drivers."""
        return self._hosts[0]

    @property
    def slices(self) -> tuple[VirtualSlice, ...]:
        """The slices added and not removed, in the order of their addition."""
        return tuple(self._slices.values())

    @property
    def hosts(self) -> tuple[VirtualHost, ...]:
        """All hosts started and not ended, the head first."""
        return tuple(self._hosts)

    def add_slice(
        self,
        pod_type: str,
        *,
        name: str | None = None,
        wait: bool = True,
        shuffle: int | None = None,
        missing: Iterable[int] = (),
        topology: str | None = None,
        chips_per_host: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> VirtualSlice:
        """Start a slice, all of its hosts side by side.

        Args:
            pod_type: for example `v4-16`, which has two hosts of four chips.
            name: the slice name, unique in the cluster; by default `<pod type>-<number>`.
            wait: wait until all hosts are registered; otherwise see `wait_for_nodes`.
            shuffle: a seed: start the hosts one by one, in an order that is not that of worker ids. Always waits.
            missing: worker ids that are left out, as if those hosts had not come up.
            topology: as `TpuSlice` has it, like `chips_per_host`.
            chips_per_host: of machines of another size than is usual.
            env: variables that differ from those of the other hosts.

        Raises:
            ValueError: there is no such pod type, topology, worker id, or the name is taken.
            VirtualClusterError: a host did not start; those started by this call are gone again.
        """
        kind = describe(pod_type, topology, chips_per_host)
        return self._add([(kind, name, frozenset(missing))], wait=wait, shuffle=shuffle, env=env)[0]

    def add_slices(self, pod_types: Sequence[str], *, wait: bool = True) -> list[VirtualSlice]:
        """Start several slices, all hosts of all of them side by side; see `add_slice`."""
        return self._add([(describe(pod_type), None, frozenset()) for pod_type in pod_types], wait=wait)

    def add_host(
        self, slice_: VirtualSlice, worker_id: int, *, chips: int | None = None, env: Mapping[str, str] | None = None
    ) -> VirtualHost:
        """Start one more host of a slice and wait for it: in place of one that is gone, or beside one that is not.

        Args:
            slice_: the slice; `slices` shows it with its new host.
            worker_id: which worker of it the host says it is.
            chips: how many units of `TPU` it offers; by default those of its pod type.
            env: variables that differ from those of the other hosts.

        Raises:
            VirtualClusterError: the host did not start, and is gone again.
        """
        kind = slice_.kind
        variables = {**tpu_variables(kind, slice_.name, ip_of(self._starter.address)), "TPU_WORKER_ID": str(worker_id)}
        started: list[VirtualHost] = []
        with self._starter.ended_on_error(started):
            host = self._starter.launch(
                f"{slice_.name[:20]}-{worker_id}-{self._starter.number()}",
                {"num_cpus": self._num_cpus, "resources": {"TPU": chips or kind.chips_per_host}},
                env={**variables, **(env or {})},
                slice_name=slice_.name,
                worker_id=worker_id,
            )
            started.append(host)
            self._starter.wait_for(started, self._start_timeout_s)
        known = self._slices.get(slice_.name, slice_)
        hosts = [*(other for other in known.hosts if other in self._hosts), host]
        in_order = tuple(sorted(hosts, key=lambda other: other.worker_id or 0))
        self._slices[slice_.name] = VirtualSlice(slice_.name, kind, in_order)
        return host

    def add_hosts(
        self,
        count: int,
        *,
        gpus: int = 0,
        cpus: int | None = None,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> list[VirtualHost]:
        """Start plain hosts, with GPUs in name only, side by side; `env` is for variables of theirs alone.

        Raises:
            VirtualClusterError: a host did not start; those started by this call are gone again.
        """
        params = {"num_cpus": self._num_cpus if cpus is None else cpus, "num_gpus": gpus}
        started: list[VirtualHost] = []
        with self._starter.ended_on_error(started):
            names = [f"host-{self._starter.number()}" for _ in range(count)]
            started.extend(self._starter.launch(name, params, env=env) for name in names)
            if wait:
                self._starter.wait_for(started, self._start_timeout_s)
        return started

    def wait_for_nodes(self, timeout_s: float | None = None) -> None:
        """Wait until every host started so far has registered with the GCS.

        Raises:
            VirtualClusterError: one failed, or is not there in time (default: `start_timeout_s`).
        """
        self._starter.wait_for(self._hosts, self._start_timeout_s if timeout_s is None else timeout_s)

    def remove_slice(self, slice_: VirtualSlice) -> None:
        """End a slice cleanly: its raylets say goodbye to the GCS, without draining first."""
        if self._slices.pop(slice_.name, None) is None:
            raise VirtualClusterError(f"slice {slice_.name} is not in this cluster")
        for host in slice_.hosts:
            host.ask_to_stop()
        end = time.monotonic() + _CLEAN_END_S
        for host in slice_.hosts:
            self._starter.end(host, grace_s=max(0.0, end - time.monotonic()))

    def kill_host(self, host: VirtualHost, *, raylet_only: bool = False) -> None:
        """SIGKILL all processes of a host at one moment, or its raylet alone, and wait for the end."""
        if raylet_only:
            host.kill_raylet()
        else:
            self._starter.end(host)

    def freeze_host(self, host: VirtualHost, *, raylet_only: bool = False) -> None:
        """SIGSTOP all processes of a host, or its raylet alone, and wait until they stand still."""
        host.freeze(raylet_only=raylet_only)

    def thaw_host(self, host: VirtualHost) -> None:
        """SIGCONT all processes of a host."""
        host.thaw()

    def notice(
        self, target: VirtualHost | VirtualSlice, *, via: Via = "preempted", deadline_s: float | None = None
    ) -> None:
        """Announce that a host, or every host of a slice, is to be taken away; `kill_host` would be the next step.

        Args:
            target: what is to be taken away.
            via: how it is told. `preempted`: by the host's metadata server, as Spot VMs are, 30 seconds ahead;
                `maintenance`: from there, too, with no known deadline; `drain`: by Ray, which ends idle nodes at once.
            deadline_s: for `drain`: in how many seconds; None = no deadline.

        Raises:
            ValueError: there is no such way, or it takes no deadline.
            VirtualClusterError: a host is not in this cluster, or Ray refuses to drain it.
        """
        give(self._targets(target), via, self._metadata, self._starter.address, deadline_s)

    def withdraw(self, target: VirtualHost | VirtualSlice, *, via: Via = "preempted") -> None:
        """Take a notice back.

        Raises:
            ValueError: there is no such way, or it is `drain`, which Ray never takes back.
            VirtualClusterError: a host is not in this cluster.
        """
        take_back(self._targets(target), via, self._metadata)

    def pids(self) -> set[int]:
        """All living processes of all hosts."""
        return processes.members(self.mark).union(*(host.pids() for host in self._hosts))

    def close(self) -> None:
        """Kill all hosts, remove all files; idempotent. Disconnects this process from the cluster.

        Raises:
            TimeoutError: something survives SIGKILL for long.
        """
        self._starter.closed = True
        if self._finalizer.alive:
            disconnect(self._starter.address)
        self._finalizer()
        self._slices.clear()
        self._starter.address = ""

    def _add(
        self,
        wanted: Sequence[tuple[PodType, str | None, frozenset[int]]],
        *,
        wait: bool,
        shuffle: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> list[VirtualSlice]:
        started: list[VirtualHost] = []
        with self._starter.ended_on_error(started):
            slices = [self._launch_slice(*each, shuffle, started, more=env or {}) for each in wanted]
            if wait:
                self._starter.wait_for(started, self._start_timeout_s)
        self._slices.update({slice_.name: slice_ for slice_ in slices})
        return slices

    def _targets(self, target: VirtualHost | VirtualSlice) -> tuple[VirtualHost, ...]:
        hosts = target.hosts if isinstance(target, VirtualSlice) else (target,)
        for host in hosts:
            if host not in self._hosts:
                raise VirtualClusterError(f"virtual host {host.name} is not in this cluster")
        return hosts

    def _launch_slice(
        self,
        kind: PodType,
        name: str | None,
        missing: frozenset[int],
        shuffle: int | None,
        started: list[VirtualHost],
        *,
        more: Mapping[str, str],
    ) -> VirtualSlice:
        name = name or f"{kind.pod_type}-{self._starter.number()}"
        if name in self._slices:
            raise ValueError(f"there is a slice named {name} already")
        if not missing <= set(range(kind.hosts)):
            raise ValueError(f"{kind.pod_type} has worker ids 0 to {kind.hosts - 1}, not {set(missing)}")
        env = {**tpu_variables(kind, name, ip_of(self._starter.address)), **more}
        params = {"num_cpus": self._num_cpus, "resources": {"TPU": kind.chips_per_host}}
        hosts: dict[int, VirtualHost] = {}
        for worker_id in start_order(kind.hosts, shuffle):
            if worker_id in missing:
                continue
            host = self._starter.launch(
                f"{name}-{worker_id}",
                params,
                env={**env, "TPU_WORKER_ID": str(worker_id)},
                slice_name=name,
                worker_id=worker_id,
            )
            hosts[worker_id] = host
            started.append(host)
            if shuffle is not None:
                host.wait_ready(self._start_timeout_s)
        return VirtualSlice(name, kind, tuple(hosts[i] for i in sorted(hosts)))
