"""Start the hosts of a virtual cluster, and end those of a call that fails."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sliceform.controller.testing.virtual.host import VirtualClusterError, VirtualHost
from sliceform.controller.testing.virtual.metadata import MetadataServers
from sliceform.controller.testing.virtual.plan import HostPlan, common_params, member_params


class Starter:
    """Starts the hosts of one cluster.

    Args:
        cluster_id: what marks all of its processes.
        directory: where logs and sockets are.
        hosts: those started and not ended; kept current here.
        metadata: where every host finds its metadata server.
        env: variables for all hosts.
        object_store_mb: size of each host's object store, in MiB.
        metrics: whether hosts export Ray's metrics.

    """

    def __init__(
        self,
        cluster_id: str,
        directory: Path,
        hosts: list[VirtualHost],
        metadata: MetadataServers,
        env: Mapping[str, str],
        *,
        object_store_mb: int,
        metrics: bool,
    ) -> None:
        self._id = cluster_id
        self._directory = directory
        self._hosts = hosts
        self._metadata = metadata
        self._env = dict(env)
        self._object_store_mb = object_store_mb
        self._metrics = metrics
        self._count = 0
        #: Of the head; empty before it runs.
        self.address = ""
        self.closed = False

    def launch(
        self,
        name: str,
        params: Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        slice_name: str | None = None,
        worker_id: int | None = None,
        head: bool = False,
    ) -> VirtualHost:
        """Start a host and return at once.

        Raises:
            VirtualClusterError: the cluster is closed.

        """
        if self.closed:
            raise VirtualClusterError("the virtual cluster is closed")
        sockets = self._directory / "s" / str(self.number())
        common = common_params(name, sockets=sockets, object_store_mb=self._object_store_mb)
        if not head:
            common |= member_params(self.address)
        host = VirtualHost(
            HostPlan(
                name=name,
                mark=f"{self._id}/{name}",
                params={**common, **params},
                env={
                    # By which an autoscaler knows a node.
                    "RAY_CLOUD_INSTANCE_ID": name,
                    "GCE_METADATA_HOST": self._metadata.add(name),
                    **self._env,
                    **(env or {}),
                },
                log=self._directory / f"{name}.log",
                slice_name=slice_name,
                worker_id=worker_id,
                head=head,
                metrics=self._metrics,
            )
        )
        self._hosts.append(host)
        return host

    def number(self) -> int:
        """Return a number that no other thing of this cluster has."""
        self._count += 1
        return self._count

    @staticmethod
    def wait_for(hosts: Iterable[VirtualHost], timeout_s: float) -> None:
        """Wait until all of them are registered, at most so many seconds."""
        deadline = time.monotonic() + timeout_s
        for host in hosts:
            host.wait_ready(max(0.0, deadline - time.monotonic()))

    @contextlib.contextmanager
    def ended_on_error(self, started: list[VirtualHost]) -> Iterator[None]:
        """End the hosts that a call has started if it fails."""
        try:
            yield
        except BaseException:
            for host in started:
                self.end(host)
            raise

    def end(self, host: VirtualHost, *, grace_s: float = 0.0) -> None:
        """End a host; the cluster has it no longer."""
        host.end(grace_s=grace_s)
        if host in self._hosts:
            self._hosts.remove(host)
