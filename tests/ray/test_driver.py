"""What becomes of a fleet when its driver is interrupted, killed, paused, or wrongly set up."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from sliceform.controller import (
    ClusterError,
    ConfigurationError,
    FleetNameTakenError,
    SliceController,
    TpuSlice,
    UnpicklableFunctionError,
)
from sliceform.controller.errors import RayWorkerError
from sliceform.controller.follow.journal import open_journal
from sliceform.controller.ray_backend import private
from sliceform.controller.testing.virtual.cluster import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

READY_S = 60.0

_DRIVER = """
import logging, sys, time
import ray
import structlog
from sliceform.controller import SliceController, TpuSlice
# Unconfigured, lines of its thread would fall into the middle of ours.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
def forever():
    import time
    time.sleep(600)
def say(*words):
    print(*words, flush=True)
"""


@pytest.fixture(scope="module")
def pool(cluster: VirtualCluster) -> VirtualCluster:
    """The module's cluster with two slices."""
    cluster.add_slices(["v4-16"] * 2)
    return cluster


@pytest.fixture
def start_driver(pool: VirtualCluster) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a driver process of its own with this body; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(body: str, **options: Any) -> subprocess.Popen[str]:
            driver = subprocess.Popen(
                [sys.executable, "-c", _DRIVER + textwrap.dedent(body), pool.address],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                **options,
            )
            stack.callback(driver.wait)
            stack.callback(driver.kill)
            return driver

        yield start


def read_until(driver: subprocess.Popen[str], word: str) -> str:
    """Return the first line of the driver's that begins with a word; the test's time limit bounds the wait."""
    assert driver.stdout is not None
    seen = []
    for line in driver.stdout:
        seen.append(line)
        if line.startswith(word):
            return line
    raise AssertionError(f"the driver ended without saying {word!r}: {seen}")


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("how", ["interrupt", "exception", "kill"])
def test_a_driver_that_ends_leaves_nothing(start_driver: Callable[[str], subprocess.Popen[str]], how: str) -> None:
    """Ctrl-C, an exception in the body, and SIGKILL: no group, no actor, no process is left."""
    driver = start_driver(
        f"""
        with SliceController(TpuSlice("v4-16"), 2) as fleet:
            fleet.wait_ready(2, {READY_S})
            run = fleet.submit(forever)
            while fleet.status().counts != {{"running": 2}} or any(
                host.state != "running" for row in fleet.status().slices for host in row.hosts
            ):
                time.sleep(0.05)
            say("running")
            if {how!r} == "exception":
                raise ValueError("the user's own")
            run.result()
        """
    )
    read_until(driver, "running")
    if how != "exception":
        driver.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    assert driver.wait(READY_S) != 0


@pytest.mark.usefixtures("no_leaks")
def test_work_saves_when_its_driver_is_told_to_end(
    start_driver: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """SIGTERM: work is told and has its grace; the driver then ends as Ray has it, with its journal closed."""
    driver = start_driver(
        f"""
        def train():
            import pathlib, time
            from sliceform.controller import host_context
            me = host_context()
            while not me.should_stop():
                time.sleep(0.05)
            time.sleep(1.0)
            pathlib.Path({str(tmp_path)!r}, f"saved-{{me.rank}}").touch()
        with SliceController(TpuSlice("v4-16"), 1, journal={str(tmp_path / "fleet.db")!r}) as fleet:
            run = fleet.submit(train)
            fleet.wait_ready(1, {READY_S})
            while any(host.state != "running" for host in fleet.status().slices[0].hosts):
                time.sleep(0.05)
            say("running")
            run.result()
        """
    )
    read_until(driver, "running")
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(READY_S) == signal.SIGTERM
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}
    with open_journal(tmp_path / "fleet.db") as journal:
        assert (journal.writing(), journal.at(time.time())) == ("closed", {})


@pytest.mark.usefixtures("no_leaks")
def test_a_process_that_dies_is_told_of_once_and_not_by_ray(start_driver: Callable[..., subprocess.Popen[str]]) -> None:
    """No reference whose task failed is left unread: Ray would print an error for each."""
    driver = start_driver(
        f"""
        def die():
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        with SliceController(TpuSlice("v4-16"), 1) as fleet:
            fleet.wait_ready(1, {READY_S})
            try:
                fleet.run(die)
            except Exception as error:
                say(type(error).__name__)
            fleet.run(int)  # what is kept of the last run is let go
        """,
        stderr=subprocess.PIPE,
    )
    out, err = driver.communicate(timeout=READY_S)
    assert driver.returncode == 0, err
    assert "RunFailed" in out.splitlines()
    assert "Unhandled error" not in err


def test_a_fleet_in_an_actor_or_a_task_is_refused(pool: VirtualCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would keep its groups when that ends; a driver is none."""
    ray.cloudpickle.register_pickle_by_value(private)
    try:
        assert ray.get(ray.remote(num_cpus=0)(private.is_worker).remote(), timeout=READY_S)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(private)
    assert not private.is_worker()
    monkeypatch.setattr(private, "is_worker", lambda: True)
    with pytest.raises(RayWorkerError, match="in the driver process"):
        SliceController(TpuSlice("v4-16"), 1).start()


@pytest.mark.usefixtures("no_leaks")
def test_a_paused_driver_finds_its_fleet_untouched(start_driver: Callable[[str], subprocess.Popen[str]]) -> None:
    """A driver that was stopped for 30 s destroys nothing when it goes on: it knows that it was not looking."""
    driver = start_driver(
        f"""
        with SliceController(TpuSlice("v4-16"), 2) as fleet:
            fleet.wait_ready(2, {READY_S})
            before = fleet.history.last_seq
            pids = [host.agent_pid for row in fleet.status().slices for host in row.hosts]
            say("ready")
            sys.stdin.readline()
            tick = fleet.status().tick
            end = time.monotonic() + 8
            while time.monotonic() < end or fleet.status().tick < tick + 8:
                time.sleep(0.1)
            after = [host.agent_pid for row in fleet.status().slices for host in row.hosts]
            same = fleet.history.last_seq == before and pids == after
            say(f"found: {{'untouched' if same else fleet.history.since(before)}}")
        """
    )
    read_until(driver, "ready")
    driver.send_signal(signal.SIGSTOP)
    time.sleep(30)  # the pause itself is what is tested
    driver.send_signal(signal.SIGCONT)
    assert read_until(driver, "found: ") == "found: untouched\n"
    assert driver.wait(READY_S) == 0


@pytest.mark.usefixtures("no_leaks")
def test_a_second_controller_of_the_same_name_is_refused(pool: VirtualCluster) -> None:
    """At once, with who holds it; the first goes on; and the name is free when the first is closed."""
    with SliceController(TpuSlice("v4-16"), 1, name="trainers") as first:
        status = first.wait_ready(1, READY_S)
        with pytest.raises(FleetNameTakenError, match=f"process {os.getpid()}"):
            SliceController(TpuSlice("v4-16"), 1, name="trainers").start()
        with SliceController(TpuSlice("v4-16"), 1, name="others") as other:
            other.wait_ready(1, READY_S)
        assert [row.hosts for row in first.status().slices] == [row.hosts for row in status.slices]
    with SliceController(TpuSlice("v4-16"), 1, name="trainers") as again:
        again.wait_ready(1, READY_S)


@pytest.mark.usefixtures("no_leaks")
def test_work_that_cannot_be_pickled_is_refused_by_part(pool: VirtualCluster) -> None:
    """The argument or variable is named, and the fleet goes on."""
    import threading

    lock = threading.Lock()
    with SliceController(TpuSlice("v4-16"), 1) as fleet:
        with pytest.raises(UnpicklableFunctionError, match="argument 2"):
            fleet.submit(print, 1, lock)
        with pytest.raises(UnpicklableFunctionError, match="argument 'data'"):
            fleet.submit(print, data=lock)
        with pytest.raises(UnpicklableFunctionError, match="'lock'"):
            fleet.submit(lambda: lock)
        greedy = ray.remote(num_cpus=64)(lambda: None)
        with pytest.raises(ConfigurationError, match="64 CPU"):
            fleet.submit(greedy)
        own = ray.remote(runtime_env={"env_vars": {"MODE": "a"}})(lambda: None)
        with pytest.raises(ConfigurationError, match="different runtime environments"):
            fleet.options(runtime_env={"env_vars": {"MODE": "b"}}).submit(own)
        assert fleet.run(lambda: 1).values == [1, 1]


def in_a_process(body: str, **env: str) -> tuple[str, str]:
    """Run a script that has no Ray of its own; return its output and its errors."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **env},
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("address", "error"), [("127.0.0.1:1", "RayUnreachableError"), ("ray://127.0.0.1:10001", "RayClientError")]
)
def test_a_cluster_that_cannot_be_used_is_refused(address: str, error: str) -> None:
    """No Ray there, and Ray Client: one clear error that says what to do."""
    body = """
    from sliceform.controller import SliceController, TpuSlice
    from sliceform.controller.errors import ClusterError
    try:
        SliceController(TpuSlice("v4-16"), 1).start()
    except ClusterError as error:
        print(type(error).__name__, error)
    """
    out, err = in_a_process(body, RAY_ADDRESS=address)
    assert out.startswith(error), err


def test_too_old_a_ray_is_refused() -> None:
    """By its version, before anything is asked of it."""
    from sliceform.controller.ray_backend.connect import check_version

    with pytest.raises(ClusterError, match=r"2\.9\.3 is too old"):
        check_version("2.9.3")
    check_version("2.60.0")
    check_version("3.0.0.dev0")
