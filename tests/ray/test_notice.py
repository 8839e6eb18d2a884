"""A notice: the work is told on all hosts of the run, and a replacement comes before the capacity is gone."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from sliceform.controller import CpuSlice, Settings, SliceController, TpuSlice
from sliceform.controller.errors import ConfigurationError, RunPreempted, UnpicklableFunctionError
from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualClusterError
from sliceform.controller.testing.virtual.notices import Via

from ._waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


def stop_when_told(path: str) -> str:
    """Runs on every host: saves and raises when asked to stop and allowed to, returns on the second attempt."""
    from sliceform.controller import host_context

    context = host_context()
    if context.attempt > 1:
        return f"after {context.previous}"
    Path(f"{path}-up-{context.rank}").touch()
    while not context.should_stop():
        time.sleep(0.02)
    Path(f"{path}-told-{context.rank}").write_text(str(context.deadline))
    while not Path(f"{path}-go").exists():
        time.sleep(0.02)
    raise RuntimeError("saved, start me again")


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    ("via", "deadline_s", "source"),
    [
        ("preempted", None, "gce-preempted"),
        # Without a deadline of its own: the work is told when it will be stopped.
        ("maintenance", None, "gce-maintenance"),
        ("drain", 30.0, "ray-drain"),
    ],
)
def test_a_notice_to_one_host_is_one_to_all_hosts_of_the_run(
    cluster: VirtualCluster, tmp_path: Path, via: Via, deadline_s: float | None, source: str
) -> None:
    cluster.add_slices(["v4-16"] * (3 - len(cluster.slices)))
    places = {slice_.name: slice_ for slice_ in cluster.slices}
    with SliceController(TpuSlice("v4-16"), 2) as fleet:
        fleet.wait_ready(2, timeout_s=60)
        run = fleet.submit(stop_when_told, str(tmp_path / "host"))
        until(lambda: len(list(tmp_path.glob("host-up-*"))) == 4, fleet.status)
        noticed = fleet.status().slices[0]
        host = places[noticed.place].hosts[1]
        began = time.time()
        cluster.notice(host, via=via, deadline_s=deadline_s)
        until(lambda: len(list(tmp_path.glob("host-told-*"))) == 4, fleet.status)
        # The replacement is there while the work still saves.
        until(lambda: fleet.status().ready == 1, fleet.status)
        assert {row.id: str(row.state) for row in fleet.status().slices}[noticed.id] == "preempted"
        if via != "drain":
            cluster.withdraw(host, via=via)
            until(lambda: "notice_withdrawn" in reasons(fleet, noticed.id), fleet.status)
        (tmp_path / "host-go").touch()
        values = run.result(timeout_s=60).values
        for rank in range(4):
            told = float((tmp_path / f"host-told-{rank}").read_text())
            assert began + 29 <= told <= began + 35
        assert len(values) == 4
        assert all(value.startswith("after preempted") for value in values)
        assert (run.status().preemptions, run.status().failures) == (1, 0)
        story = [change for change in fleet.history.story(noticed.id) if change.kind == "slice"]
        preempt = next(change for change in story if change.trigger == "preempt")
        assert preempt.reason == "preemption_notice"
        deadline = "no deadline" if via == "maintenance" else f"deadline at {told:.0f}"
        assert f"host 1: notice from {source}, {deadline}" in preempt.detail
        assert next(change for change in story if change.trigger == "drain").reason == "work_gone"
        replacement = next(change for change in fleet.history.story("slice-3") if change.trigger == "create")
        assert replacement.at - preempt.at < 1.0


@pytest.fixture
def pod(cluster: VirtualCluster, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A node as KubeRay starts one: `ray start --block` in a process group of its own."""
    command = ["-m", "ray.scripts.scripts", "start", "--block", f"--address={cluster.address}", "--num-cpus=1"]
    options = ['--resources={"pod": 1}', "--object-store-memory=104857600", "--disable-usage-stats"]
    started = subprocess.Popen(
        [sys.executable, *command, *options],
        stdout=(tmp_path / "pod.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    yield started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


@pytest.mark.usefixtures("no_leaks")
def test_a_pod_that_is_deleted_gives_its_work_what_kubernetes_gives_it(
    pod: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Kubernetes sends SIGTERM; `ray start --block` makes of it a drain of 30 s, the usual grace period of pods."""
    shape = CpuSlice(1, resources_per_host={"pod": 1})
    with SliceController(shape) as fleet:
        fleet.wait_ready(timeout_s=60)
        run = fleet.options(max_preemptions=0).submit(stop_when_told, str(tmp_path / "host"))
        until(lambda: list(tmp_path.glob("host-up-*")), fleet.status)
        told = time.time()
        pod.send_signal(signal.SIGTERM)
        until(lambda: list(tmp_path.glob("host-told-*")), fleet.status)
        deadline = float((tmp_path / "host-told-0").read_text())
        assert told + 25 <= deadline <= told + 32
        (tmp_path / "host-go").touch()
        with pytest.raises(RunPreempted):
            run.result(timeout_s=60)
        preempt = next(change for change in fleet.history.story("slice-1") if change.trigger == "preempt")
        assert "notice from ray-drain, deadline at" in preempt.detail


def reasons(fleet: SliceController, slice_id: str) -> list[str]:
    return [str(change.reason) for change in fleet.history.story(slice_id)]


@ray.remote(num_cpus=0)
class Said:
    """Keeps a deadline, and lives as long as somebody has a handle of it."""

    def __init__(self) -> None:
        self._deadline: float | None = None

    def deadline(self, new: float | None = None) -> float | None:
        self._deadline = new or self._deadline
        return self._deadline


def told_by_both(asked: Path) -> list[str]:
    """Let a host hear SIGTERM and its replacement the user's function; return what slices were told."""
    said = Said.remote()

    def source() -> float | None:
        asked.touch()
        return ray.get(said.deadline.remote())

    settings = Settings(notice_every_s=0.1, avoid_lost_s=0.0)
    with SliceController(CpuSlice(1), settings=settings, notice_source=source) as fleet:
        fleet.wait_ready(timeout_s=60)
        # Ready says nothing of notices: from here on the agent listens.
        until(asked.exists, fleet.status)
        os.kill(fleet.status().slices[0].hosts[0].agent_pid, signal.SIGTERM)
        until(lambda: "preemption_notice" in reasons(fleet, "slice-1"), fleet.status)
        until(lambda: fleet.status().ready == 1, fleet.status)
        said.deadline.remote(4e9)
        until(lambda: "preemption_notice" in reasons(fleet, "slice-2"), fleet.status)
        return [next(c.detail for c in fleet.history.story(f"slice-{n}") if c.trigger == "preempt") for n in (1, 2)]


@pytest.mark.usefixtures("cluster", "no_leaks")
def test_agents_hear_sigterm_and_a_function_of_the_users(tmp_path: Path) -> None:
    assert told_by_both(tmp_path / "asked") == [
        "host 0: notice from sigterm, no deadline",
        "host 0: notice from notice-source, deadline at 4000000000",
    ]
    # The actor ends with its last handle, one of which the fleet's function has.
    gc.collect()


@pytest.mark.usefixtures("cluster")
def test_a_function_that_cannot_travel_is_refused_at_once() -> None:
    fleet = SliceController(CpuSlice(1), notice_source=threading.Lock().locked)
    with pytest.raises(UnpicklableFunctionError, match="notice_source"):
        fleet.start()
    fleet.close()
    with pytest.raises(ConfigurationError, match="notice_source must be a function"):
        SliceController(CpuSlice(1), notice_source=True)


def test_only_hosts_of_the_cluster_get_notice(cluster: VirtualCluster) -> None:
    with pytest.raises(ValueError, match="via must be one of"):
        cluster.notice(cluster.head, via="mail")
    with pytest.raises(ValueError, match="deadline_s is for via='drain'"):
        cluster.notice(cluster.head, deadline_s=5.0)
    with pytest.raises(ValueError, match="does not take a drain back"):
        cluster.withdraw(cluster.head, via="drain")
    (gone,) = cluster.add_hosts(1)
    cluster.kill_host(gone)
    with pytest.raises(VirtualClusterError, match="is not in this cluster"):
        cluster.notice(gone)
