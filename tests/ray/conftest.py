"""Fixtures for tests on real raylets: a connected `VirtualCluster`, and a check that nothing leaks."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import state as ray_state

from sliceform.controller.testing.virtual.cluster import VirtualCluster

StartCluster = Callable[..., AbstractContextManager[VirtualCluster]]

#: How long what a test leaves behind may take to go, in seconds.
_SETTLE_S = 45.0

#: Parts of the command lines of what Ray runs on a host whether or not anybody uses it.
_RAYS_OWN = (
    b"ray::IDLE",
    b"ray::DashboardAgent",
    b"ray::RuntimeEnvAgent",
    b"ray::LogMonitor",
    b"default_worker.py",
    b"setup_worker.py",
    b"log_monitor.py",
    b"dashboard/agent.py",
    b"runtime_env/agent",
    b"raylet/raylet",
    b"gcs_server",
    b"virtual/node.py",
)

_SITECUSTOMIZE = '''\
import sys


class _Hidden:
    """Makes sliceform look not installed; what is put into sys.modules is still found."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "sliceform":
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the tests)", name=name)


sys.meta_path.insert(0, _Hidden)
'''


@pytest.fixture(scope="session")
def hide_sliceform(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for hosts on which sliceform is not installed."""
    folder = tmp_path_factory.mktemp("hide")
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def start_cluster(hide_sliceform: dict[str, str]) -> StartCluster:
    """`with start_cluster(...) as cluster:` a virtual cluster that this process is connected to.

    Takes the arguments of `VirtualCluster`. Sliceform is hidden from the hosts unless `env` is given.
    """

    @contextlib.contextmanager
    def start(**arguments: Any) -> Iterator[VirtualCluster]:
        with VirtualCluster(**{"env": hide_sliceform, **arguments}) as cluster:
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            try:
                yield cluster
            finally:
                ray.shutdown()

    return start


@pytest.fixture(scope="module", autouse=True)
def tests_travel_by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Functions of a test module need not be importable on the hosts."""
    ray.cloudpickle.register_pickle_by_value(request.module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(scope="module")
def cluster(start_cluster: StartCluster) -> Iterator[VirtualCluster]:
    """A cluster of only a head, connected; shared by the tests of a module, which add hosts to it."""
    with start_cluster() as started:
        yield started


@pytest.fixture
def leftovers(cluster: VirtualCluster) -> Callable[[], list[str]]:
    """What exists on the module's cluster that an idle one would not have, in words."""
    return lambda: _leftovers(cluster)


@pytest.fixture
def no_leaks(leftovers: Callable[[], list[str]]) -> Iterator[None]:
    """After the test: no group but removed ones, no living actor, no process but Ray's own."""
    yield
    deadline = time.monotonic() + _SETTLE_S
    while left := leftovers():
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)


def _leftovers(cluster: VirtualCluster) -> list[str]:
    groups = ray.util.placement_group_table().values()
    actors = ray_state.actors().values()
    left = [f"group {group['name']} {group['state']}" for group in groups if group["state"] != "REMOVED"]
    left += [f"actor {actor['ActorClassName']}" for actor in actors if actor["State"] != "DEAD"]
    for pid in cluster.pids():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
            if command and not any(part in command for part in _RAYS_OWN):
                left.append(f"process {pid} {command[:200]!r}")
    return left
