"""The whole controller on real raylets: fleets that grow, shrink, lose hosts and run functions."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import state as ray_state

from sliceform.controller import RunCancelled, RunFailed, Settings, SliceController, TpuSlice
from sliceform.controller.model.status import FleetStatus
from sliceform.controller.testing.virtual.cluster import VirtualCluster, VirtualHost
from sliceform.states import replay

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

POD = "v4-16"
READY_S = 60.0


@pytest.fixture(scope="module")
def pool(cluster: VirtualCluster) -> VirtualCluster:
    """The module's cluster with four slices."""
    cluster.add_slices([POD] * 4)
    return cluster


@pytest.fixture
def whole(pool: VirtualCluster) -> Iterator[VirtualCluster]:
    """The same, brought back to four slices after a test that killed hosts."""
    yield pool
    for broken in [row for row in pool.slices if len([host for host in row.hosts if host.alive]) < 2]:
        pool.remove_slice(broken)
    pool.add_slices([POD] * (4 - len(pool.slices)))


def fleet_of(slices: Any, **options: Any) -> SliceController:
    return SliceController(TpuSlice(POD), slices, **options)


def wait_for(what: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Wait for a condition, and return what it gave."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "the condition did not come"
        time.sleep(0.02)
    return found


def wait_status(fleet: SliceController, done: Callable[[FleetStatus], bool], timeout_s: float = 60.0) -> FleetStatus:
    wait_for(lambda: done(fleet.status()), timeout_s)
    return fleet.status()


def pids(status: FleetStatus) -> dict[str, tuple[int, ...]]:
    return {row.id: tuple(host.agent_pid for host in row.hosts) for row in status.slices}


def host_of(cluster: VirtualCluster, place: str | None, worker_id: int) -> VirtualHost:
    return next(row for row in cluster.slices if row.name == place).hosts[worker_id]


def who(_: Any = None) -> dict[str, Any]:
    """Runs on every host; imports from a sliceform that is not installed there."""
    from sliceform.controller import host_context

    context = host_context()
    return {
        "rank": context.rank,
        "world_size": context.world_size,
        "coordinator": context.coordinator_address,
        "host_rank": context.host_rank,
        "slice_rank": context.slice_rank,
        "slice_id": context.slice_id,
        "attempt": context.attempt,
        "worker_id": os.environ["TPU_WORKER_ID"],
        "name": os.environ["TPU_NAME"],
        "megascale": os.environ.get("MEGASCALE_SLICE_ID"),
        "pid": os.getpid(),
    }


def count(path: str) -> None:
    """A counter that runs until it is told to stop."""
    from sliceform.controller import host_context

    n = 0
    while not host_context().should_stop():
        n += 1
        Path(f"{path}-{host_context().slice_id}-{host_context().host_rank}").write_text(f"{os.getpid()} {n}")
        time.sleep(0.02)


def counted(path: str, name: str) -> tuple[str, int] | None:
    """Return the process and the number of a slice's first counter; None while it has not written, or just writes."""
    file = Path(f"{path}-{name}-0")
    words = file.read_text().split() if file.exists() else []
    return (words[0], int(words[1])) if len(words) == 2 else None


@pytest.mark.usefixtures("no_leaks")
def test_sizes_two_four_two_keep_the_first_two_slices(pool: VirtualCluster) -> None:
    """Scaling touches only what has to change: the same agent processes serve throughout."""
    with fleet_of(2) as fleet:
        fleet.wait_ready(2, READY_S)
        first = pids(fleet.status())
        fleet.scale(4)
        fleet.wait_ready(4, READY_S)
        four = pids(fleet.status())
        assert {name: four[name] for name in first} == first
        fleet.scale(2)
        status = wait_status(fleet, lambda status: len(status.slices) == 2)
        assert pids(status) == first
        assert all(pid > 0 for agents in first.values() for pid in agents)
        wait_for(lambda: fleet.plan() == ())
    assert replay(fleet.history) == ()


@pytest.mark.usefixtures("no_leaks")
def test_a_run_returns_by_rank_and_rank_is_the_worker_id(pool: VirtualCluster) -> None:
    """Values come by rank and by slice; the hosts cannot see an installed sliceform."""
    with fleet_of(2, settings=Settings(coordinator_ports="21000-21003")) as fleet:
        fleet.wait_ready(2, READY_S)
        result = fleet.run(who)
        assert {value["coordinator"][-5:] for value in result.values} <= {"21000", "21001", "21002", "21003"}
        assert [value["rank"] for value in result.values] == [0, 1, 2, 3]
        assert [[value["host_rank"] for value in row] for row in result.by_slice] == [[0, 1], [0, 1]]
        for value in result.values:
            assert value["worker_id"] == str(value["host_rank"])
            assert value["world_size"] == 4
            assert value["megascale"] == str(value["slice_rank"])
        assert len({value["pid"] for value in result.values}) == 4
        again = fleet.options(slices=1).run(who)
        assert {value["megascale"] for value in again.values} == {None}
        assert not {value["pid"] for value in again.values} & {value["pid"] for value in result.values}


@ray.remote(num_cpus=0)
class Adder:
    """Answers as long as somebody holds a handle of it."""

    def add(self, one: int, other: int) -> int:
        return one + other


def use_references(fleet: SliceController) -> None:
    """Use references and a handle, wherever they can be, over two attempts; keep none."""
    ref = ray.put(40)
    adder = Adder.remote()

    def look(given: Any, nested: dict[str, Any]) -> tuple[str, int, Any]:
        from sliceform.controller import host_context

        if isinstance(given, ray.ObjectRef) and host_context().attempt == 1:
            raise RuntimeError("once more")
        return type(given).__name__, ray.get(adder.add.remote(*nested["all"], 2)), ref

    for fn, seen in ((look, "ObjectRef"), (ray.remote(look), "int")):
        found = fleet.options(max_failures=1).run(fn, ref, nested={"all": [ref]}).values
        assert [value[:2] for value in found] == [(seen, 42)] * 2
        assert ray.get([value[2] for value in found]) == [40, 40]


@pytest.mark.usefixtures("no_leaks")
def test_references_are_of_use_on_hosts_and_are_let_go_with_the_run(pool: VirtualCluster) -> None:
    """A remote function gets the values of its arguments, as in Ray; no object and no actor outlives its run."""
    count = ray._private.worker.global_worker.core_worker.get_all_reference_counts
    with fleet_of(1) as fleet:
        fleet.wait_ready(1, READY_S)
        fleet.run(who)
        before = len(count())
        use_references(fleet)
        # A slice keeps what its last attempt returned until its next one.
        fleet.run(who)
        gc.collect()
        wait_for(lambda: len(count()) <= before)
        wait_for(lambda: not [row for row in ray_state.actors().values() if living(row, "Adder")])


def living(actor: dict[str, Any], name: str) -> bool:
    return actor["ActorClassName"] == name and actor["State"] != "DEAD"


@pytest.mark.usefixtures("no_leaks")
def test_losing_a_host_leaves_the_other_slices_alone(whole: VirtualCluster, tmp_path: Any) -> None:
    """One host of slice B is killed while counters run on A and C: their agents and counters go on."""
    with fleet_of(3) as fleet:
        fleet.wait_ready(3, READY_S)
        before = pids(fleet.status())
        path = str(tmp_path / "count")
        runs = [fleet.options(slices=1).submit(count, path) for _ in range(3)]
        status = wait_status(fleet, lambda status: status.counts == {"running": 3})
        middle = status.slices[1]
        others = [status.slices[0].id, status.slices[2].id]
        numbers = {name: wait_for(lambda name=name: counted(path, name)) for name in others}
        whole.kill_host(host_of(whole, middle.place, 1))
        status = wait_status(fleet, lambda status: status.ready == 3 and middle.id not in pids(status))
        assert {name: agents for name, agents in pids(status).items() if name in others} == {
            name: before[name] for name in others
        }
        replacement = status.slices[-1]
        assert replacement.replaces == middle.id
        assert replacement.place != middle.place
        for name in others:
            pid, number = numbers[name]
            later = wait_for(lambda name=name, number=number: (now := counted(path, name)) and now[1] > number and now)
            assert later[0] == pid
        story = str(fleet.history.story(middle.id))
        assert "preempted" in story
        assert "node_died" in story
        for run in runs:
            run.cancel(grace_s=5)
        assert all(run.wait(READY_S) for run in runs)
        # Who returns when asked to stop has returned: that is a success, not a cancellation.
        assert {run.status().state for run in runs} <= {"succeeded", "cancelled"}
    assert replay(fleet.history) == ()


@pytest.mark.usefixtures("no_leaks")
def test_two_or_four_is_ready_at_two_and_grows_with_the_fourth_slice(pool: VirtualCluster) -> None:
    """`[2, 4]` with three slices there serves at two without waiting, and grows when the fourth appears."""
    spare = pool.slices[-1]
    pool.remove_slice(spare)
    with fleet_of([2, 4], settings=Settings(settle_s=2 * READY_S)) as fleet:
        fleet.wait_ready(timeout_s=READY_S)
        assert fleet.status().size == 2
        wait_status(fleet, lambda status: status.ready == 3)
        kept = pids(fleet.status())
        pool.add_slice(POD)
        fleet.wait_ready(4, READY_S)
        after = pids(fleet.status())
        assert fleet.status().size == 4
        assert all(after[name] == agents for name, agents in kept.items() if all(agents))


@pytest.mark.usefixtures("no_leaks")
def test_a_function_that_raises_gives_its_traceback_and_harms_nothing(pool: VirtualCluster) -> None:
    """The user's own traceback comes back, and the slice goes on."""

    def fail() -> None:
        from sliceform.controller import host_context

        if host_context().rank == 1:
            raise ValueError("no such learning rate")

    with fleet_of(1) as fleet:
        fleet.wait_ready(1, READY_S)
        before = pids(fleet.status())
        with pytest.raises(RunFailed) as caught:
            fleet.run(fail)
        assert "no such learning rate" in str(caught.value)
        assert 'raise ValueError("no such learning rate")' in caught.value.remote_traceback
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.host.endswith("/1")
        wait_status(fleet, lambda status: status.counts == {"ready": 1})
        assert pids(fleet.status()) == before
        assert [value["rank"] for value in fleet.run(who).values] == [0, 1]


@pytest.mark.usefixtures("no_leaks")
def test_cancel_leaves_no_process(pool: VirtualCluster, leftovers: Callable[[], list[str]], tmp_path: Any) -> None:
    """A function that ignores everything, with a child that left its session, is gone after `cancel`."""

    def stubborn(path: str) -> None:
        import signal
        import subprocess

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["setsid", "sleep", "600"])
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        Path(f"{path}-{os.environ['SLICEFORM_RANK']}").write_text("up")
        time.sleep(600)

    with fleet_of(1) as fleet:
        fleet.wait_ready(1, READY_S)
        path = str(tmp_path / "up")
        run = fleet.submit(stubborn, path)
        wait_for(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
        run.cancel(grace_s=0.2)
        with pytest.raises(RunCancelled):
            run.result(READY_S)
        wait_status(fleet, lambda status: status.counts == {"ready": 1})
        assert [line for line in leftovers() if line.startswith("process") and "AgentActor" not in line] == []


@pytest.mark.usefixtures("no_leaks")
def test_a_run_restarts_after_its_slice_is_lost(whole: VirtualCluster, tmp_path: Any) -> None:
    """The attempt that lost a host is charged to preemption, and never succeeds on the hosts that are left."""

    def work(path: str, ballast: bytes) -> tuple[int, str]:
        from sliceform.controller import host_context

        assert len(ballast) == 300_000

        context = host_context()
        if context.attempt == 1:
            Path(f"{path}-{context.rank}").write_text("up")
            if context.rank == 0:
                return context.attempt, "returned early"
            time.sleep(600)
        return context.attempt, context.slice_id

    with fleet_of(2) as fleet:
        fleet.wait_ready(2, READY_S)
        run = fleet.options(max_preemptions=1).submit(work, str(tmp_path / "up"), bytes(300_000))
        wait_for(lambda: all((tmp_path / f"up-{rank}").exists() for rank in range(4)))
        lost = fleet.status().slices[1]
        whole.kill_host(host_of(whole, lost.place, 0))
        result = run.result(READY_S)
        assert [value[0] for value in result.values] == [2, 2, 2, 2]
        first, second = run.attempts
        assert (first.outcome, second.outcome) == ("preempted", "succeeded")
        assert second.slices[0] == first.slices[0]
        assert second.slices[1] != first.slices[1]
        assert run.status().preemptions == 1
        assert run.status().failures == 0


@pytest.mark.usefixtures("no_leaks")
def test_rank_equals_worker_id_twenty_times_however_hosts_registered(cluster: VirtualCluster) -> None:
    """Host rank is TPU worker id on slices whose hosts registered in shuffled order, 20 of 20 times."""
    shuffled = [cluster.add_slice("v4-32", shuffle=seed) for seed in (3, 11)]
    try:
        for _ in range(10):
            with SliceController(TpuSlice("v4-32"), 2) as fleet:
                status = fleet.wait_ready(2, READY_S)
                by_node = {host.node_id: host.worker_id for row in shuffled for host in row.hosts}
                for row in status.slices:
                    assert [by_node[host.node_id] for host in row.hosts] == [0, 1, 2, 3]
        with SliceController(TpuSlice("v4-32"), 2) as fleet:
            values = fleet.run(who).values
            assert [value["worker_id"] for value in values] == [str(value["host_rank"]) for value in values]
    finally:
        for row in shuffled:
            cluster.remove_slice(row)


@pytest.mark.usefixtures("no_leaks")
def test_why_tells_causes_apart(whole: VirtualCluster) -> None:
    """No such pod type, chips held by a named group, a host of the slice missing: three different answers."""
    with SliceController(TpuSlice("v5p-16"), 1) as fleet:
        wait_status(fleet, lambda status: status.counts == {"pending": 1})
        wait_for(lambda: fleet.why().codes == ("no_such_pod_type",))
        assert POD in str(fleet.why())
    holder = ray.util.placement_group([{f"TPU-{POD}-head": 1}] * 4, name="somebody-elses", strategy="SPREAD")
    ray.get(holder.ready(), timeout=30)
    try:
        with fleet_of(1) as fleet:
            wait_status(fleet, lambda status: status.counts == {"pending": 1})
            why = fleet.why(fleet.status().slices[0].id)
            assert "chips_held" in why.codes
            assert "somebody-elses" in str(why)
    finally:
        ray.util.remove_placement_group(holder)
    broken = whole.slices[0]
    whole.kill_host(broken.hosts[1])
    wait_for(lambda: not any(node["Alive"] and node["NodeID"] == broken.hosts[1].node_id for node in ray.nodes()))
    with fleet_of(4) as fleet:
        wait_status(fleet, lambda status: status.ready == 3)
        missing = next(row for row in fleet.status().slices if row.state != "ready")
        why = fleet.why(missing.id)
        assert "host_missing" in why.codes
        assert "worker 1" in str(why) or "worker id 1" in str(why)
