"""How a virtual cluster begins and ends: its directory, its warden, the end of all its processes.

Does not import ray: a process that never did is not connected to anything.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sliceform.controller.testing.virtual import processes
from sliceform.controller.testing.virtual.host import VirtualHost
from sliceform.controller.testing.virtual.metadata import MetadataServers

#: Ray's socket paths have to fit into 103 bytes; what it and we append takes up to 60.
_LONGEST_DIRECTORY = 43
_WARDEN_END_S = 30.0


def short_directory() -> Path:
    """A new directory whose path is short enough for the names of unix sockets inside."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _LONGEST_DIRECTORY - len("/sf-12345678"):
        parent = "/tmp"  # noqa: S108 - mkdtemp makes the directory private
    directory = Path(tempfile.mkdtemp(prefix="sf-", dir=parent))
    (directory / "s").mkdir()
    return directory


def start_warden(cluster_id: str, directory: Path) -> subprocess.Popen[bytes]:
    """Start the process that clears up when the owner, which holds its standard input, is gone."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", processes.__name__, f"{cluster_id}/", str(directory)],
        stdin=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,
    )


def disconnect(address: str) -> None:
    """Shut the Ray connection of this process down if it is to this cluster.

    A driver whose raylet dies ends its whole process.
    """
    ray = sys.modules.get("ray")
    if ray is None or not address or not ray.is_initialized():
        return
    if ray.get_runtime_context().gcs_address == address:
        ray.shutdown()


def destroy(
    cluster_id: str,
    directory: Path,
    hosts: list[VirtualHost],
    warden: subprocess.Popen[bytes],
    *,
    metadata: MetadataServers,
    owner: int,
) -> None:
    """End all of a cluster, in the process that owns it; a forked child leaves it alone.

    Raises:
        TimeoutError: something survived SIGKILL for long.
    """
    if os.getpid() != owner:
        return
    if hosts and hosts[0].alive:
        disconnect(hosts[0].address)
    try:
        mark = f"{cluster_id}/"
        processes.kill(lambda: processes.members(mark).union(*(host.pids() for host in hosts)))
        for host in hosts:
            host.end()
        hosts.clear()
    finally:
        metadata.close()
        if warden.stdin is not None:
            warden.stdin.close()
        try:
            warden.wait(_WARDEN_END_S)
        except subprocess.TimeoutExpired:
            warden.kill()
            warden.wait()
        shutil.rmtree(directory, ignore_errors=True)
