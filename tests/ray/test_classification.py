"""How runs end on real raylets, decided by what was observed and never by what an error says."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient

from sliceform.controller import RunCancelled, RunFailed, RunPreempted, SliceController, TpuSlice, host_context
from sliceform.controller.api.run import Run
from sliceform.controller.model.status import SliceStatus
from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualHost

from ._waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

#: A slice of one host, so that every case has a slice of its own on the same cluster.
SHAPE = TpuSlice("v4-8")
READY_S = 60.0
#: As in Ray's autoscaler.proto.
_PREEMPTION = 2


@pytest.fixture(scope="module")
def cluster(start_cluster: Any) -> Iterator[VirtualCluster]:
    with start_cluster() as started:
        started.add_slices([SHAPE.pod_type] * 4)
        yield started


def say_preempted() -> None:
    raise RuntimeError("preempted: NodeDiedError, the node was drained")


def exit_with_three() -> None:
    raise SystemExit(3)


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def run_out_of_memory() -> None:
    """The kernel ends a process that does so with SIGKILL, unasked."""
    os.kill(os.getpid(), signal.SIGKILL)


def lose_a_peer() -> None:
    """Rank 1 dies while rank 0 waits for it, which is told of that by its socket before anybody else is."""
    context = host_context()
    host, port = str(context.coordinator_address).rsplit(":", 1)
    if context.rank == 0:
        with socket.create_server(("", int(port))) as server:
            server.settimeout(READY_S)
            peer, _ = server.accept()
            peer.sendall(b"x")
            while peer.recv(1):
                pass
            raise ValueError("a collective ended: its peer is gone")
    end = time.monotonic() + READY_S
    while True:
        try:
            peer = socket.create_connection((host, int(port)))
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)
    peer.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def ignore_everything(path: str) -> None:
    """Runs until it is killed, whatever it is told."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).write_text(str(os.getpid()))
    time.sleep(1_000.0)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.usefixtures("no_leaks")
def test_what_the_users_code_does_is_a_failure_and_a_cancel_is_a_cancel(
    cluster: VirtualCluster, tmp_path: Path
) -> None:
    with SliceController(SHAPE, 4) as fleet:
        fleet.wait_ready(4, READY_S)
        one = fleet.options(slices=1, max_preemptions=9)
        runs = {fn: one.submit(fn) for fn in (say_preempted, exit_with_three, segfault)}
        hanging = one.submit(ignore_everything, str(tmp_path / "pid"))
        runs[run_out_of_memory] = one.submit(run_out_of_memory)
        until((tmp_path / "pid").exists, fleet.status)
        pid = int((tmp_path / "pid").read_text() or 0)
        hanging.cancel(grace_s=0.2)
        with pytest.raises(RunCancelled):
            hanging.result(READY_S)
        assert not alive(pid)
        errors = {}
        for fn, run in runs.items():
            with pytest.raises(RunFailed) as caught:
                run.result(READY_S)
            errors[fn] = caught.value
        assert [run.status().preemptions for run in runs.values()] == [0] * 4
        until(lambda: fleet.status().counts == {"ready": 4}, fleet.status)
        assert not [change for change in fleet.history if change.trigger == "preempt"]
    assert isinstance(errors[say_preempted].exception, RuntimeError)
    assert isinstance(errors[exit_with_three].exception, SystemExit)
    assert [errors[fn].attempts[0].hosts for fn in (segfault, run_out_of_memory)] == [("crashed",)] * 2


@pytest.mark.usefixtures("no_leaks", "cluster")
def test_the_process_that_died_is_blamed_though_its_peer_is_heard_first() -> None:
    """What its peer raises is here before Ray has seen the death, and is of no class that would tell."""
    with SliceController(SHAPE, 2) as fleet:
        fleet.wait_ready(2, READY_S)
        blamed = []
        for _ in range(5):
            with pytest.raises(RunFailed) as caught:
                fleet.run(lose_a_peer)
            blamed.append((caught.value.host, caught.value.attempts[-1].hosts[1]))
    assert blamed == [("slice-2/0", "crashed")] * 5


@pytest.mark.usefixtures("no_leaks")
def test_what_takes_a_host_away_is_a_preemption_and_a_dead_agent_is_not(
    cluster: VirtualCluster, tmp_path: Path
) -> None:
    """Killed without notice, killed long before and long after its deadline, and an agent killed on a living node."""
    names = ("unnoticed", "early", "late", "agent")
    with SliceController(SHAPE, 4) as fleet:
        fleet.wait_ready(4, READY_S)
        one = fleet.options(slices=1, max_preemptions=0, max_failures=0)
        runs = {name: one.submit(ignore_everything, str(tmp_path / name)) for name in names}
        until(lambda: all((tmp_path / name).exists() for name in names), fleet.status)
        at = {name: working(fleet, run) for name, run in runs.items()}
        drain(cluster, at["late"], deadline_s=1.0)
        drain(cluster, at["early"], deadline_s=600.0)
        until(lambda: len([row for row in fleet.status().slices if row.state == "preempted"]) == 2, fleet.status)
        cluster.kill_host(host_of(cluster, at["early"]))
        cluster.kill_host(host_of(cluster, at["unnoticed"]))
        os.kill(at["agent"].hosts[0].agent_pid, signal.SIGKILL)
        until(runs["late"].done, fleet.status)
        cluster.kill_host(host_of(cluster, at["late"]))
        for name in ("unnoticed", "early", "late"):
            with pytest.raises(RunPreempted):
                runs[name].result(READY_S)
        with pytest.raises(RunFailed):
            runs["agent"].result(READY_S)
        causes = {
            name: [c.reason for c in fleet.history.story(at[name].id) if c.trigger == "preempt" and c.kind == "slice"]
            for name in names
        }
    assert causes == {
        "unnoticed": ["node_died"],
        "early": ["preemption_notice"],
        "late": ["preemption_notice"],
        "agent": ["agent_died"],
    }


@pytest.mark.usefixtures("no_leaks")
def test_fifty_starts_and_cancels_leave_nothing(
    cluster: VirtualCluster, tmp_path: Path, leftovers: Callable[[], list[str]]
) -> None:
    """Cancelled at once, when the attempt has begun, and when its process runs: no process stays, the slice does."""
    cluster.add_slices([SHAPE.pod_type] * (1 - len([row for row in cluster.slices if row.hosts[0].alive])))
    with SliceController(SHAPE, 1) as fleet:
        agents = {host.agent_pid for row in fleet.wait_ready(1, READY_S).slices for host in row.hosts}
        pids = []
        for number in range(50):
            path = tmp_path / str(number)
            run = fleet.submit(ignore_everything, str(path))
            if number % 3 == 1:
                until(lambda run=run: run.attempts, fleet.status)
            elif number % 3 == 2:
                until(lambda path=path: path.exists() and path.read_text(), fleet.status)
                pids.append(int(path.read_text()))
            run.cancel(grace_s=0.0)
            with pytest.raises(RunCancelled):
                run.result(READY_S)
        until(lambda: fleet.status().counts == {"ready": 1}, fleet.status)
        assert len(pids) == 16
        assert not any(alive(pid) for pid in pids)
        assert {host.agent_pid for host in fleet.status().slices[0].hosts} == agents
        assert len([what for what in leftovers() if "group" in what]) == 2


def working(fleet: SliceController, run: Run) -> SliceStatus:
    """Return the slice that a run is on."""
    (name,) = run.attempts[0].slices
    return next(row for row in fleet.status().slices if row.id == name)


def host_of(cluster: VirtualCluster, row: SliceStatus) -> VirtualHost:
    return next(place for place in cluster.slices if place.name == row.place).hosts[0]


def drain(cluster: VirtualCluster, row: SliceStatus, deadline_s: float) -> None:
    """Have Ray drain the slice's node, as it does before it is taken away."""
    deadline_ms = int((time.time() + deadline_s) * 1000)
    told = GcsClient(address=cluster.address).drain_node(row.hosts[0].node_id, _PREEMPTION, "spot", deadline_ms)
    assert told[0], told
