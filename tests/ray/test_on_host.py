"""The agent and the host process as Ray runs them, where sliceform cannot be imported and nothing is installed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from sliceform.controller.on_host import bootstrap, remote, sigterm

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def local_ray(hide_sliceform: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a Ray of this machine's own, whose workers have what this process has in its environment now."""
    folder = tmp_path_factory.mktemp("tmp")
    # The path of a socket must be short.
    short = tempfile.mkdtemp(prefix="sf-oh-")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**hide_sliceform, "TMPDIR": str(folder)}.items():
            patch.setenv(name, value)
        patch.setattr("tempfile.tempdir", None)
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=short)
    for module in (bootstrap, remote, sigterm):
        ray.cloudpickle.register_pickle_by_value(module)
    yield folder
    for module in (bootstrap, remote, sigterm):
        ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()
    shutil.rmtree(short, ignore_errors=True)


@pytest.fixture
def incarnation() -> str:
    return f"i-{time.time_ns()}"


@pytest.fixture
def agent(local_ray: Path, incarnation: str) -> Iterator[Any]:
    actor = ray.remote(num_cpus=0)(remote.AgentActor)
    handle = actor.remote(bootstrap.sources(), {"slice_id": "slice-1", "rank": 0, "incarnation": incarnation})
    yield handle
    ray.kill(handle)


def call(attempt: str, incarnation: str) -> dict[str, Any]:
    return {
        "incarnation": incarnation,
        "attempt": attempt,
        "run_id": "run-1",
        "number": 1,
        "rank": 0,
        "world_size": 1,
        "slice_rank": 0,
        "num_slices": 1,
        "host_rank": 0,
        "hosts_per_slice": 1,
        "slice_id": "slice-1",
        "place": None,
        "devices": 0,
        "previous": None,
        "coordinator_address": "127.0.0.1:1",
        "megascale_address": "127.0.0.1:2",
        "env": {"MINE": "yes"},
        "jax_shutdown_s": 1.0,
    }


def submit(attempt: str, incarnation: str, function: Any, *args: Any) -> Any:
    task = ray.remote(num_cpus=1, num_returns=2, max_calls=1, max_retries=0)(remote.run_host)
    work = ray.cloudpickle.dumps((function, args, {}))
    return task.remote(bootstrap.sources(), call(attempt, incarnation), work, ())


def look() -> dict[str, Any]:
    """What the user's function sees on a host."""
    import sys

    from sliceform.controller import host_context

    with pytest_raises_import_error():
        from sliceform.controller import SliceController  # noqa: F401
    return {
        "pid": os.getpid(),
        "leads": os.getsid(0) == os.getpid() == os.getpgrp(),
        "rank": host_context().rank,
        "mine": os.environ["MINE"],
        "heavy": [name for name in ("jax", "structlog", "transitions") if name in sys.modules],
    }


def pytest_raises_import_error() -> Any:
    """Work on a host that has no pytest, for all we know."""
    import contextlib

    @contextlib.contextmanager
    def raises() -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            assert "not installed on this host" in str(error)  # noqa: PT017
        else:
            raise AssertionError("no error")

    return raises()


def test_agent_and_host_process_work_where_sliceform_cannot_be_imported(agent: Any) -> None:
    described = ray.get(agent.describe.remote(), timeout=60)
    assert described["node_id"] == ray.get_runtime_context().get_node_id()
    assert described["address"]
    assert ray.get(agent.beat.remote(0.01), timeout=30) is True
    prepared = ray.get(agent.prepare.remote("run-1/1", want_ports=True), timeout=30)
    assert len(set(prepared["meet"])) == 2


def test_a_function_runs_and_is_seen_to_start_and_to_be_gone(agent: Any, incarnation: str) -> None:
    ray.get(agent.prepare.remote("run-1/1", want_ports=False), timeout=60)
    started = agent.wait_started.remote("run-1/1")
    envelope, value = submit("run-1/1", incarnation, look)
    assert ray.get(envelope, timeout=60)["status"] == "returned", ray.get(envelope)
    found = ray.cloudpickle.loads(ray.get(value))
    assert found["pid"] == ray.get(started, timeout=30)
    assert (found["leads"], found["rank"], found["mine"]) == (True, 0, "yes")
    assert found["heavy"] == []
    assert ray.get(agent.stop.remote("run-1/1", 10.0), timeout=30)["killed"] == 0
    assert not Path(f"/proc/{found['pid']}").exists()


def test_stop_ends_a_process_that_does_not_listen_and_all_that_it_started(
    agent: Any, incarnation: str, local_ray: Path
) -> None:
    def stubborn(path: str) -> None:
        import signal
        import subprocess

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["setsid", "sleep", "600"])
        Path(path).write_text(f"{os.getpid()} {child.pid} done")
        os.kill(os.getpid(), signal.SIGSTOP)

    ray.get(agent.prepare.remote("run-1/2", want_ports=False), timeout=60)
    path = local_ray / "pids"
    envelope, _ = submit("run-1/2", incarnation, stubborn, str(path))
    end = time.monotonic() + 30
    while not path.exists() or "done" not in path.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    pids = path.read_text().split()[:2]
    assert ray.get(agent.stop.remote("run-1/2", 0.1), timeout=30)["killed"] >= 2
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(envelope, timeout=30)
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or ") Z " in stat.read_text()
