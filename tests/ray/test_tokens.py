"""Clusters with Ray's token authentication, and drivers that have the token, another one, or none."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sliceform.controller.testing.virtual.cluster import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(120)]

_SECRET = uuid4().hex
_DRIVER = """
import logging
import structlog
from ray._private import services
from sliceform.controller import CpuSlice, SliceController
from sliceform.controller.errors import ClusterError
from sliceform.controller.ray_backend import private
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
if {address!r}:
    private.local_cluster = lambda: {address!r}  # whatever else runs on this machine
    services.get_ray_address_from_environment = lambda *_: {address!r}
try:
    with SliceController(CpuSlice(2)) as fleet:
        print(fleet.run(lambda: 1).values)
except ClusterError as error:
    print(type(error).__name__, error)
"""


def drive(home: Path, address: str = "", **env: str) -> str:
    """Run a driver in a process of its own, and return what it printed; `address` is the cluster that `auto` means."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER.format(address=address)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**inherited, "PYTHONPATH": path, "HOME": str(home), **env},
    )
    assert done.stdout, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def guarded() -> Iterator[VirtualCluster]:
    with VirtualCluster(env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _SECRET}) as cluster:
        yield cluster


def test_a_fleet_runs_on_a_cluster_whose_token_it_has(guarded: VirtualCluster, tmp_path: Path) -> None:
    assert drive(tmp_path, RAY_ADDRESS=guarded.address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_SECRET) == "[1, 1]\n"


@pytest.mark.parametrize("token", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _SECRET[::-1]}])
def test_a_driver_without_the_token_is_told_so(guarded: VirtualCluster, tmp_path: Path, token: dict[str, str]) -> None:
    told = drive(tmp_path, RAY_ADDRESS=guarded.address, **token)
    assert told.startswith(f"RayTokenError the cluster at {guarded.address} refuses this process")


def test_a_token_of_another_cluster_in_the_home_is_told_so(guarded: VirtualCluster, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(_SECRET[::-1])
    assert drive(tmp_path, guarded.address).startswith(f"RayTokenError the cluster at {guarded.address} refuses")


def test_a_token_that_lies_about_is_used_where_the_cluster_has_it(guarded: VirtualCluster, tmp_path: Path) -> None:
    """Ray would turn it on for `auto` on any cluster, and on one without tokens every actor would die as it starts."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(_SECRET)
    assert drive(tmp_path, guarded.address) == "[1, 1]\n"
    with VirtualCluster() as open_to_all:
        assert drive(tmp_path, open_to_all.address) == "[1, 1]\n"
