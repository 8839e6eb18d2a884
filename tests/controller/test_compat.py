"""The old pool's interface on a simulated cluster: sizes, positions, calls to slices and hosts, and their answers."""

import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, TaskCancelledError

from sliceform.controller import ClusterError, ConfigurationError, FleetClosedError, Settings, TpuSlice
from sliceform.controller.api.work import Submitter
from sliceform.controller.compat import (
    InsufficientSlicesError,
    SliceInfo,
    SlicePoolManager,
    desk,
    manager,
    refs,
    slice_work,
)
from sliceform.controller.compat.calls import join, make_call
from sliceform.controller.compat.refs import Promise
from sliceform.controller.model.clock import SystemClock
from sliceform.controller.model.run_options import RunOptions
from sliceform.controller.on_host.own_call import run_own_call
from sliceform.controller.on_host.parcel import unwrap
from sliceform.controller.ray_backend.private import remote_parts
from sliceform.controller.testing import SimBackend

SHAPE = TpuSlice("v4-16")
#: Quick, on the machine's own clock: the pool has a thread that answers.
TIMINGS = {
    "place_s": 0.01,
    "assemble_s": 0.01,
    "agent_s": 0.01,
    "launch_s": 0.01,
    "work_s": 0.01,
    "stop_s": 0.01,
    "remove_s": 0.01,
    "detect_s": 0.01,
    "node_death_s": 0.02,
}
SETTINGS = {"resync_s": 0.02, "nodes_every_s": 0.05, "settle_s": 0.2, "cancel_grace_s": 0.05, "close_grace_s": 0.05}
#: Longer than any answer takes.
WAIT_S = 20.0


class FakeRefs:
    """Futures in place of Ray's references; what a reference holds has been pickled, as with Ray."""

    def __init__(self, on_cancel: Callable[[int], None]) -> None:
        self.on_cancel = on_cancel
        self.promises: list[Promise] = []

    def value(self, value: Any) -> Any:
        ref: Future[Any] = Future()
        ref.set_result(pickle.loads(pickle.dumps(value)))
        return ref

    def promise(self) -> Promise:
        self.promises.append(Promise(len(self.promises), Future()))
        return self.promises[-1]

    def keep(self, promise: Promise, data: bytes, held: tuple[Any, ...] = ()) -> None:
        promise.ref.set_result(unwrap(data, held))

    def fail(self, promise: Promise, error: Exception) -> None:
        self.fail_as(promise, pickle.dumps(error), str(error))

    def fail_as(self, promise: Promise, error: bytes, text: str) -> None:
        promise.ref.set_exception(pickle.loads(error))

    def hand(self, refs: Any) -> Any:
        ref: Future[Any] = Future()
        ref.set_result(list(refs))
        return ref

    def hand_one(self, ref: Any) -> Any:
        outer: Future[Any] = Future()
        outer.set_result(ref)
        return outer

    def get(self, refs: Any) -> list[Any]:
        return [get(ref) for ref in refs]

    def cancel(self, ref: Any) -> None:
        self.on_cancel(next(promise.number for promise in self.promises if promise.ref is ref))

    def close(self) -> None:
        assert all(promise.ref.done() for promise in self.promises)


def get(ref: Any) -> Any:
    """What `ray.get` is elsewhere: one reference or a list of them."""
    return [get(each) for each in ref] if isinstance(ref, list) else ref.result(WAIT_S)


class World:
    """A pool on a simulated cluster."""

    def __init__(self, places: int, **timings: float) -> None:
        self.sims: list[SimBackend] = []
        self.places = places
        self.timings = {**TIMINGS, **timings}
        self.pool = SlicePoolManager("v4-16", settings=Settings(**SETTINGS), make_backend=self.backend)

    def backend(self) -> SimBackend:
        self.sims.append(SimBackend(SHAPE, self.places, clock=SystemClock(), **self.timings))
        return self.sims[-1]

    @property
    def sim(self) -> SimBackend:
        return self.sims[-1]

    @property
    def names(self) -> list[str]:
        return [member.actor.slice_id for member in self.pool.get_all_pool_members()]

    def hosts(self, index: int = 0) -> list[Any]:
        found: list[Any] = get(self.pool.get_all_actors_in_pool()[index].get_all_actors_in_pool.remote())
        return found

    def states(self) -> set[str | None]:
        """The states of all hosts."""
        return {host.state for row in self.pool._opened().fleet.status().slices for host in row.hosts}

    def busy(self) -> None:
        """Wait until work runs on every host."""
        until(lambda: self.states() == {"running"})

    def kill(self, index: int) -> None:
        """Lose a slice of the pool, and wait until the fleet knows."""
        actor = self.pool.get_all_actors_in_pool()[index]
        self.sim.kill_host(get(actor.get_info.remote()).slice_name, 0)
        until(lambda: not get(actor.healthy.remote()))


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end, "the condition did not come"
        time.sleep(0.005)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    monkeypatch.setattr(desk, "Refs", FakeRefs)
    monkeypatch.setattr(slice_work, "GATHER_S", 0.05)
    before = dict(os.environ)
    made: list[World] = []

    def make(places: int = 2, **timings: float) -> World:
        made.append(World(places, **timings))
        return made[-1]

    yield make
    for one in made:
        one.pool.drain_actor_pool()
        assert all(sim.left_at_close == {} for sim in one.sims)
    os.environ.clear()
    os.environ.update(before)


def seen(*names: str) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def explode(text: str) -> None:
    raise ValueError(text)


def power(base: int, exponent: int) -> int:
    return int(base**exponent)


class TestSizes:
    def test_that_cannot_work_are_refused_at_once(self, world: Any) -> None:
        here = world()
        for wrong in ([], 0, -1, [0, 2], "two"):
            with pytest.raises(ValueError, match="slices"):
                here.pool.scale_multislice(wrong)
        with pytest.raises(ValueError, match="v4-16"):
            SlicePoolManager("v4-17")
        with pytest.raises(ConfigurationError, match="needs a TPU type"):
            SlicePoolManager(None)
        assert here.sims == []

    def test_change_without_touching_the_slices_that_stay(self, world: Any) -> None:
        here = world(4)
        here.pool.scale_multislice(2)
        first = here.pool.get_all_pool_members()
        here.pool.scale_multislice(4)
        assert here.pool.get_all_pool_members()[:2] == first
        assert len(set(here.pool.get_all_pool_members())) == 4
        here.pool.scale_multislice(2)
        assert here.pool.get_all_pool_members() == first
        here.pool.scale_multislice(2)
        assert here.pool.get_all_pool_members() == first

    def test_the_largest_that_can_be_had_will_do(self, world: Any) -> None:
        here = world(3)
        here.pool.scale_multislice([8, 4, 2])
        assert here.names == ["slice-1", "slice-2"]

    def test_none_of_which_can_be_had_are_said_why(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EFORMER_SCALE_ADD_TIMEOUT_S", "0.3")
        here = world(1)
        with pytest.raises(InsufficientSlicesError, match="1 of 2 slices ready:\n  slice-2: ") as caught:
            here.pool.scale_multislice([2, 4])
        assert isinstance(caught.value, RuntimeError)
        assert here.names == []

    def test_a_larger_one_is_worth_a_try_when_it_is_there(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        here = world(1)
        assert here.pool.should_scale_up_multislice([1])
        here.pool.scale_multislice([1, 2])
        assert here.names == ["slice-1"]
        assert not here.pool.should_scale_up_multislice([1])
        monkeypatch.setattr(manager, "_COOL_DOWN_S", 0.0)
        assert not here.pool.should_scale_up_multislice([1, 2])
        assert here.pool.should_scale_up_multislice([1, 8])
        here.sim.add_slice("more")
        until(lambda: here.pool.should_scale_up_multislice([1, 2]))
        monkeypatch.setattr(manager, "_COOL_DOWN_S", 60.0)
        assert not here.pool.should_scale_up_multislice([1, 2])
        here.pool.scale_multislice([1, 2])
        assert here.names == ["slice-1", "slice-2"]


class TestPrepare:
    def test_puts_a_replacement_in_the_place_of_a_slice_that_was_lost(self, world: Any) -> None:
        here = world(3)
        here.pool.scale_multislice(2)
        here.kill(0)
        here.pool.prepare_all_slices()
        assert here.names == ["slice-3", "slice-2"]
        assert get([actor.healthy.remote() for actor in here.pool.get_all_actors_in_pool()]) == [True, True]

    def test_never_goes_on_with_fewer(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        here = world(2)
        here.pool.scale_multislice(2)
        here.kill(1)
        monkeypatch.setenv("EFORMER_SCALE_ADD_TIMEOUT_S", "0.3")
        with pytest.raises(InsufficientSlicesError, match="1 of 2 slices ready"):
            here.pool.prepare_all_slices()
        assert here.names == ["slice-1", "slice-2"]

    def test_of_an_empty_pool_says_what_to_do(self, world: Any) -> None:
        with pytest.raises(InsufficientSlicesError, match="call scale_multislice first"):
            world().pool.execute_on_each_slice(int)


class TestInfos:
    def test_tell_of_a_slice_and_its_hosts(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        (member,) = here.pool.get_all_pool_members()
        info = get(member.actor.get_info.remote())
        assert info == member.actor_info
        assert isinstance(info, SliceInfo)
        assert (info.num_hosts, info.num_accelerators_per_host) == (2, 4)
        assert [row["node_id"] for row in info.host_infos] == list(info.node_ids)
        hosts = get(member.actor.get_all_pool_members.remote())
        assert [(row.actor_info.host_id, row.actor_info.node_id) for row in hosts] == list(enumerate(info.node_ids))
        assert get(member.actor.prepare_hosts.remote()) is None
        assert get(member.actor.ensure_host_pool.remote()) is None
        assert get(member.actor.is_being_preempted.remote()) is False

    def test_are_those_of_now(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        (actor,) = here.pool.get_all_actors_in_pool()
        (_, host) = here.hosts()
        assert get(host.get_info.remote()).healthy
        here.kill(0)
        assert get(host.healthy.remote()) is False
        for asked in (actor.get_info, actor.prepare_hosts, actor.ensure_host_pool, actor.get_all_pool_members):
            with pytest.raises(ActorDiedError, match="slice-1 is unhealthy or preempted"):
                get(asked.remote())
        with pytest.raises(ActorDiedError, match="slice-1 is unhealthy or preempted"):
            get(host.run_remote_fn.remote(int))
        with pytest.raises(ActorDiedError, match="slice-1 is unhealthy or preempted"):
            get(actor.run_remote_fn.remote(int))

    def test_a_slice_is_used_whole(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        (actor,) = here.pool.get_all_actors_in_pool()
        assert get(actor.ensure_host_pool.remote(2)) is None
        with pytest.raises(ConfigurationError, match="has 2 hosts and is used whole, not 1"):
            actor.ensure_host_pool.remote(1)

    def test_a_name_that_there_is_not_is_an_error(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        assert not hasattr(here.pool.get_all_actors_in_pool()[0], "ensure_hosts_pool")


class TestCalls:
    def test_to_each_host_have_variables_of_their_own(self, world: Any) -> None:
        here = world(2)
        here.pool.scale_multislice(2)
        outer = [
            host.run_remote_fn.remote(
                seen, f_args=("INDEX", "MEGASCALE_SLICE_ID"), env={"INDEX": rank, "MEGASCALE_SLICE_ID": index}
            )
            for index in range(2)
            for rank, host in enumerate(here.hosts(index))
        ]
        found = [(row["MEGASCALE_SLICE_ID"], row["INDEX"]) for row in get(get(outer))]
        assert found == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]

    def test_to_a_slice_are_answered_by_host(self, world: Any) -> None:
        here = world(2)
        here.pool.scale_multislice(2)
        (actor, _) = here.pool.get_all_actors_in_pool()
        inner = get(actor.run_remote_fn.remote(divmod, env={"A": "1"}, f_args=(7,), f_kwargs=None))
        assert len(inner) == 2
        with pytest.raises(TypeError, match="divmod expected 2 arguments"):
            get(inner)
        assert get(get(actor.run_remote_fn.remote(ray.remote(power), f_args=(2, 3)))) == [8, 8]

    def test_to_the_whole_pool_come_nested_flat_or_as_values(self, world: Any) -> None:
        here = world(2)
        here.pool.scale_multislice(2)
        names = {"X": "1"}
        assert get(here.pool.execute_on_each_slice(dict)) == [[{}, {}], [{}, {}]]
        assert get(here.pool.execute_on_each_host_flat(dict, env=names)) == [{}, {}, {}, {}]
        assert get(here.pool.schedule_on_each_host(dict, env=names)) == [{}, {}, {}, {}]
        assert here.pool.execute_on_each_host(seen, "X", env=names) == [[names, names], [names, names]]
        assert here.pool.execute_on_each_host(dict, a=1) == [[{"a": 1}, {"a": 1}], [{"a": 1}, {"a": 1}]]

    def test_to_one_host_run_there_alone(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        assert get(get(here.hosts()[1].run_remote_fn.remote(seen, f_args=("B",), env={"B": "2"}))) == {"B": "2"}

    def test_that_cannot_run_together_are_refused(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        first, second = here.hosts()
        ref = get(first.run_remote_fn.remote(int))
        with pytest.raises(ConfigurationError, match="calls to the hosts of one slice run together"):
            second.run_remote_fn.remote(int, num_cpus=0.5)
        assert get(ref) == 0

    def test_after_another_wait_for_it(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        for number in range(3):
            refs = [get(host.run_remote_fn.remote(abs, f_args=(number,))) for host in here.hosts()]
            assert get(refs) == [number, number]

    def test_that_fail_raise_the_users_exception_on_every_host(self, world: Any) -> None:
        here = world(1)
        here.pool.scale_multislice(1)
        first, second = here.hosts()
        refs = [first.run_remote_fn.remote(explode, f_args=("boo",)), second.run_remote_fn.remote(int)]
        for ref in get(refs)[:1]:
            with pytest.raises(ValueError, match="boo"):
                get(ref)

    def test_on_a_slice_that_is_lost_fail_as_those_of_dead_actors_do(self, world: Any) -> None:
        here = world(1, work_s=600.0)
        here.pool.scale_multislice(1)
        refs = here.pool.schedule_on_each_host(int)
        here.busy()
        here.kill(0)
        for ref in refs:
            with pytest.raises(ActorDiedError, match="slice-1 was preempted"):
                get(ref)

    def test_over_several_slices_fail_together_when_one_is_lost(self, world: Any) -> None:
        here = world(3, work_s=600.0)
        here.pool.scale_multislice(3)
        joined = {"MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1:8081"}
        actors = here.pool.get_all_actors_in_pool()
        first, second, alone = [
            get(actor.run_remote_fn.remote(int, env=env))
            for actor, env in zip(actors, [joined, joined, {}], strict=True)
        ]
        here.busy()
        here.kill(1)
        for ref in second:
            with pytest.raises(ActorDiedError, match="slice-2 was preempted"):
                get(ref)
        for ref in first:
            with pytest.raises(ActorDiedError, match="another slice of the execution on slice-1 was preempted"):
                get(ref)
        assert not any(ref.done() for ref in alone)

    def test_that_wait_for_a_slice_which_is_lost_fail_too(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slice_work, "GATHER_S", 600.0)
        here = world(1)
        here.pool.scale_multislice(1)
        ref = get(here.hosts()[0].run_remote_fn.remote(int))
        here.kill(0)
        with pytest.raises(ActorDiedError, match="slice-1 is unhealthy or preempted"):
            get(ref)


class TestCancel:
    def test_by_a_new_call_to_the_host(self, world: Any) -> None:
        here = world(1, work_s=600.0)
        here.pool.scale_multislice(1)
        old = here.pool.schedule_on_each_host(int)
        here.busy()
        here.pool.schedule_on_each_host(int)
        for ref in old:
            with pytest.raises(TaskCancelledError):
                get(ref)

    def test_of_what_has_not_started(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slice_work, "GATHER_S", 600.0)
        here = world(1)
        here.pool.scale_multislice(1)
        first, _ = here.hosts()
        ref = get(first.run_remote_fn.remote(int))
        assert get(first.cancel_current.remote()) is None
        with pytest.raises(TaskCancelledError, match="before it started"):
            get(ref)

    def test_is_there_when_the_processes_are_gone(self, world: Any) -> None:
        here = world(1, work_s=600.0)
        here.pool.scale_multislice(1)
        first, second = here.hosts()
        assert get(first.cancel_current.remote()) is None
        here.pool.schedule_on_each_host(int)
        here.busy()
        get([first.cancel_current.remote(), second.cancel_current.remote()])
        assert here.states() == {"ready"}

    def test_by_reference(self, world: Any) -> None:
        here = world(1, work_s=600.0)
        here.pool.scale_multislice(1)
        refs = here.pool.schedule_on_each_host(int)
        here.pool._opened().refs.cancel(refs[1])
        for ref in refs:
            with pytest.raises(TaskCancelledError):
                get(ref)


class TestEnd:
    def test_drain_lets_go_of_everything_and_the_pool_can_be_filled_again(self, world: Any) -> None:
        here = world(1, work_s=600.0)
        here.pool.drain_actor_pool()
        here.pool.scale_multislice(1)
        (actor,) = here.pool.get_all_actors_in_pool()
        refs = here.pool.schedule_on_each_host(int)
        here.pool.drain_actor_pool()
        here.pool.drain_actor_pool()
        for ref in refs:
            with pytest.raises(ActorDiedError, match="the pool was drained"):
                get(ref)
        assert here.pool.get_all_pool_members() == []
        with pytest.raises(FleetClosedError, match="its pool was drained, or lives in another process"):
            actor.healthy.remote()
        here.pool.scale_multislice(1)
        assert here.names == ["slice-1"]

    def test_shutdown_lets_one_slice_go(self, world: Any) -> None:
        here = world(2)
        here.pool.scale_multislice(1)
        (actor,) = here.pool.get_all_actors_in_pool()
        assert get(actor.shutdown.remote()) is None
        assert get(actor.shutdown.remote()) is None
        here.pool.prepare_all_slices()
        assert here.names == ["slice-2"]


class TestMake:
    def test_leaves_out_what_old_executors_set_by_mistake(self) -> None:
        runtime_env = {"env_vars": {"TOKEN": "secret"}, "pip": ["a"]}
        env = {"TPU_NAME": "EMPTY", "TPU_ZONE": "here", "A": 1, "B": None, "env_vars": str(runtime_env["env_vars"])}
        call = make_call(SHAPE, int, env=env, runtime_env=runtime_env)
        assert call.env == {"TPU_ZONE": "here", "A": "1"}
        assert call.runtime_env == runtime_env
        assert make_call(SHAPE, int, runtime_env={"env_vars": {}}).runtime_env == {}

    def test_honours_or_refuses_what_a_call_asks_for(self) -> None:
        shape = TpuSlice("v4-16", cpus_per_host=8, memory_per_host=2**30)
        own = ray.remote(num_cpus=2, runtime_env={"pip": ["a"]})(power)
        call = make_call(shape, own, memory_bytes=1000, extra_resources={"TPU": 2})
        assert call.resources == {"CPU": 2, "memory": 1000, "TPU": 2}
        assert call.runtime_env["pip"]["packages"] == ["a"]
        assert make_call(shape, own, num_cpus=0).resources == {"CPU": 0}
        submitted, _ = join({0: call})
        parts = remote_parts(submitted)
        assert parts is not None
        assert parts.function is run_own_call
        asked = {name: parts.options[name] for name in ("num_cpus", "memory", "resources")}
        assert asked == {"num_cpus": 2, "memory": 1000, "resources": {"TPU": 2}}
        with pytest.raises(ConfigurationError, match="asks for 9 CPU, but a host of this pool has 8"):
            make_call(shape, int, num_cpus=9)
        with pytest.raises(ConfigurationError, match="max_retries=3 cannot be honoured"):
            make_call(shape, ray.remote(max_retries=3)(power))

    def test_refuses_variables_that_cannot_be(self) -> None:
        with pytest.raises(ConfigurationError, match="env: 'A=B' cannot be the name of a variable"):
            make_call(SHAPE, sum, env={"A=B": "1"})
        assert make_call(SHAPE, sum, env={"A": None, "RANK": 1}).env == {"RANK": "1"}

    def test_sends_work_that_hosts_share_once(self) -> None:
        calls = {rank: make_call(SHAPE, sum, f_args=([1, 2],), env={"RANK": rank}) for rank in range(2)}
        function, (own, works) = join(calls)
        assert function is run_own_call
        assert own == {0: ({"RANK": "0"}, 0), 1: ({"RANK": "1"}, 0)}
        assert len(works) == 1


class TestRefs:
    @pytest.mark.parametrize("job", ["02000000", None])
    def test_leave_ray_alone_once_the_connection_is_gone(
        self, monkeypatch: pytest.MonkeyPatch, job: str | None
    ) -> None:
        def current() -> str:
            if job is None:
                raise ClusterError("the connection to Ray is closed")
            return job

        monkeypatch.setattr(refs, "current_job", current)
        left = object.__new__(refs.Refs)
        left._job = "01000000"  # no actor: asking it anything would raise AttributeError
        left.close()
        left.fail(Promise(1, None), ValueError("boo"))

    def test_what_the_mailbox_answers_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ray prints errors that nobody has seen; that it is dead is told by its promises."""
        answers: list[Future[Any]] = []

        class Mailbox:
            """The actor, its method, and the reference that this returns."""

            @property
            def put(self) -> "Mailbox":
                return self

            def remote(self, *_: Any) -> "Mailbox":
                return self

            def future(self) -> Future[Any]:
                answers.append(Future())
                return answers[-1]

        monkeypatch.setattr(refs, "current_job", lambda: "01")
        ours = object.__new__(refs.Refs)
        ours._job, ours._mailbox = "01", Mailbox()
        ours.keep(Promise(1, None), b"")
        ours.fail(Promise(2, None), ValueError("no"))
        assert len(answers) == 2
        for answer in answers:
            answer.set_exception(ActorDiedError())


class TestPinned:
    def test_run_waits_for_its_slice_alone_and_nobody_waits_behind_it(self, sim_fleet: Any) -> None:
        world = sim_fleet(2, 2, work_s=5.0).ready()
        pinned = RunOptions(sizes=(1,), max_preemptions=0, pinned=("slice-2",))
        first, second = (Submitter(world.fleet, pinned).submit(int) for _ in range(2))
        other = world.fleet.options(slices=1).submit(int)
        world.until(lambda: len(world.rows("running")) == 2)
        assert [run.status().state for run in (first, second, other)] == ["running", "waiting", "running"]
        assert second.status().detail == "waits until slice-2 can take it"
        assert (first.attempts[0].slices, other.attempts[0].slices) == (("slice-2",), ("slice-1",))
        world.over(second)
        assert second.attempts[0].slices == ("slice-2",)
