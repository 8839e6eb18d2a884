"""Code written against the old pool manager, with nothing changed but what it imports, on real raylets."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, NodeDiedError, RayTaskError, TaskCancelledError

from sliceform.controller import ConfigurationError
from sliceform.controller.compat import InsufficientSlicesError, SlicePoolManager
from sliceform.controller.testing.virtual.cluster import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

POD = "v4-16"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is left when a pool is drained has little time to stop."""
    monkeypatch.setenv("SLICEFORM_CLOSE_GRACE_S", "0.5")
    monkeypatch.setenv("SLICEFORM_CANCEL_GRACE_S", "0.5")


@pytest.fixture(scope="module")
def slices(cluster: VirtualCluster) -> VirtualCluster:
    """The module's cluster with three slices of two hosts."""
    cluster.add_slices([POD] * 3)
    return cluster


@pytest.fixture
def pool(slices: VirtualCluster) -> Iterator[SlicePoolManager]:
    """A pool of one slice."""
    made = SlicePoolManager(tpu_type=POD)
    try:
        made.scale_multislice(1)
        yield made
    finally:
        made.drain_actor_pool()


# In the shape of the old executor: nothing below knows of sliceform.


def execute(fn: Any, sizes: int | Sequence[int], **kwargs: Any) -> list[Any]:
    """One attempt on as many slices as there are; values by slice and host, in one list."""
    manager = SlicePoolManager(tpu_type=POD)
    try:
        manager.scale_multislice(sizes)
        manager.prepare_all_slices()
        members = manager.get_all_pool_members()
        ray.get([member.actor.ensure_host_pool.remote() for member in members])
        infos = ray.get([member.actor.get_info.remote() for member in members])
        begun = []
        for index, member in enumerate(members):
            env = {"TPU_NAME": "EMPTY", "TPU_POD_COUNT": str(len(members))}
            if len(members) > 1:
                env |= {
                    "MEGASCALE_COORDINATOR_ADDRESS": f"{infos[0].ip_address}:8081",
                    "MEGASCALE_NUM_SLICES": str(len(members)),
                    "MEGASCALE_PORT": "8081",
                    "MEGASCALE_SLICE_ID": str(index),
                    "TPU_SLICE_NAME": infos[index].slice_name,
                }
            hosts = ray.get(member.actor.get_all_actors_in_pool.remote())
            begun += [
                host.run_remote_fn.remote(
                    fn, f_args=(), f_kwargs=kwargs, runtime_env={}, env={**env, "EXECUTOR_CALL_INDEX": str(rank)}
                )
                for rank, host in enumerate(hosts)
            ]
        return ray.get(ray.get(begun))
    finally:
        manager.drain_actor_pool()


def execute_resumable(fn: Any, sizes: Sequence[int], **kwargs: Any) -> tuple[int, list[Any]]:
    """Try again after each preemption; return how often that was, and the values."""
    preemptions = 0
    while preemptions < 3:
        try:
            return preemptions, execute(fn, sizes, **kwargs)
        except (ActorDiedError, NodeDiedError, InsufficientSlicesError):
            preemptions += 1
    raise AssertionError("preempted too often")


@ray.remote
def train(path: str, size: int) -> dict[str, str | None]:
    """Hangs on every host the first time, as work does that has lost one of its own."""
    me = f"{os.environ['EXECUTOR_CALL_INDEX']}-{os.environ['MEGASCALE_SLICE_ID']}"
    if not Path(f"{path}-again").exists():
        Path(f"{path}-{me}").write_text(os.environ["TPU_SLICE_NAME"])
        time.sleep(600)
    names = ("EXECUTOR_CALL_INDEX", "MEGASCALE_SLICE_ID", "MEGASCALE_NUM_SLICES", "TPU_SLICE_NAME", "TPU_NAME")
    seen = {name: os.environ.get(name) for name in (*names, "TPU_HOST_ID", "TPU_WORKER_ID", "JAX_PROCESS_ID")}
    return {**seen, "size": str(size)}


def test_a_resumable_execution_survives_the_loss_of_a_slice(slices: VirtualCluster, tmp_path: Path) -> None:
    """The largest feasible of two sizes, variables for each slice and host, a slice killed, a second attempt."""
    up = [tmp_path / f"up-{host}-{index}" for host in range(2) for index in range(2)]

    def kill() -> None:
        while not all(file.exists() and file.read_text() for file in up):
            time.sleep(0.02)
        (tmp_path / "up-again").write_text("")
        second = (tmp_path / "up-0-1").read_text()
        for host in next(row for row in slices.slices if row.name == second).hosts:
            slices.kill_host(host)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    preemptions, flat = execute_resumable(train, [1, 2], path=str(tmp_path / "up"), size=7)
    killer.join(30.0)
    assert preemptions == 1
    assert [(value["MEGASCALE_SLICE_ID"], value["TPU_HOST_ID"]) for value in flat] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    assert all(value["EXECUTOR_CALL_INDEX"] == value["TPU_HOST_ID"] == value["TPU_WORKER_ID"] for value in flat)
    assert {value["MEGASCALE_NUM_SLICES"] for value in flat} == {"2"}
    assert all(value["TPU_NAME"] == value["TPU_SLICE_NAME"] for value in flat)
    assert {value["JAX_PROCESS_ID"] for value in flat} == {None}
    assert {value["size"] for value in flat} == {"7"}


class NoSuchRate(Exception):
    """The user's own."""


def fail() -> None:
    if os.environ["TPU_HOST_ID"] == "1":
        raise NoSuchRate("no such learning rate")
    time.sleep(600)


def test_the_users_exception_comes_back(pool: SlicePoolManager) -> None:
    """Of the host that raised it, and for all that ran with it; with its own traceback, and the slice goes on."""
    (actor,) = pool.get_all_actors_in_pool()
    refs = ray.get(actor.run_remote_fn.remote(fail))
    for ref in refs:
        with pytest.raises(NoSuchRate) as caught:
            ray.get(ref, timeout=30)
        assert isinstance(caught.value, RayTaskError)
        assert 'raise NoSuchRate("no such learning rate")' in str(caught.value)
        assert "preempt" not in str(caught.value)
    assert pool.execute_on_each_host(divmod, 7, 2) == [[(3, 1), (3, 1)]]
    remote = ray.remote(lambda given, nested: (given, nested))
    ((one, other),) = pool.execute_on_each_host(remote, ray.put(7), nested=[ray.put(2)])
    assert one[0] == other[0] == 7
    assert ray.get([*one[1], *other[1]], timeout=30) == [2, 2]


def test_options_of_a_call(pool: SlicePoolManager) -> None:
    """Honoured, or refused in a sentence; and lost slices refuse calls as dead actors do."""
    (actor,) = pool.get_all_actors_in_pool()
    first, second = ray.get(actor.get_all_actors_in_pool.remote())

    def ids(_: Any = None) -> tuple[dict[str, list[Any]], str | None]:
        return ray.get_runtime_context().get_assigned_resources(), os.environ.get("COLOUR")

    inner = ray.get(first.run_remote_fn.remote(ids, num_cpus=0.5, extra_resources={"TPU": 2}, env={"COLOUR": "red"}))
    resources, colour = ray.get(inner, timeout=30)
    assert (resources["CPU"], resources["TPU"], colour) == (0.5, 2, "red")
    with pytest.raises(ConfigurationError, match="asks for 2e\\+10 memory, but a host of this pool has 0"):
        second.run_remote_fn.remote(ids, memory_bytes=20e9)
    info = ray.get(second.get_info.remote())
    assert (info.host_id, info.num_devices, info.healthy, info.failed) == (1, 4, True, False)
    ray.get(actor.shutdown.remote(), timeout=30)
    assert ray.get(second.healthy.remote()) is False
    with pytest.raises(ActorDiedError, match="slice-1 is unhealthy or preempted"):
        ray.get(second.run_remote_fn.remote(ids))
    pool.prepare_all_slices()
    assert [row.slice_name for row in ray.get([a.get_info.remote() for a in pool.get_all_actors_in_pool()])]


def test_cancelling_a_reference_ends_the_work(pool: SlicePoolManager, leftovers: Callable[[], list[str]]) -> None:
    """`ray.cancel` on what old code holds ends the processes, and a new call to a host ends what it still runs."""
    (actor,) = pool.get_all_actors_in_pool()
    hosts = ray.get(actor.get_all_actors_in_pool.remote())
    stuck = [ray.get(host.run_remote_fn.remote(time.sleep, f_args=(600,))) for host in hosts]
    ready, _ = ray.wait(stuck, num_returns=1, timeout=0.5)
    assert ready == []
    ray.cancel(stuck[0])
    for ref in stuck:
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=30)
    stuck = [ray.get(host.run_remote_fn.remote(time.sleep, f_args=(600,))) for host in hosts]
    fresh = [ray.get(host.run_remote_fn.remote(abs, f_args=(-rank,))) for rank, host in enumerate(hosts)]
    assert ray.get(fresh, timeout=30) == [0, 1]
    with pytest.raises(TaskCancelledError):
        ray.get(stuck[0], timeout=30)
    assert [line for line in leftovers() if "run_host" in line] == []
