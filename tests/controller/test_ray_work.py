"""Attempts of the Ray backend when hosts, or Ray itself, do not take what they are given; needs no Ray."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import exceptions

from sliceform.controller import CpuSlice, Settings
from sliceform.controller.errors import ResultLost
from sliceform.controller.model.effects import AttemptSpec, Launch, Notify, Stop
from sliceform.controller.model.events import EffectFailed, Notified, OutcomeKind, ProcessEnded, ProcessGone, Reserved
from sliceform.controller.on_host.parcel import Parcel
from sliceform.controller.ray_backend import endings, outcomes
from sliceform.controller.ray_backend.attempts import Attempts
from sliceform.controller.ray_backend.endings import Endings
from sliceform.controller.ray_backend.lives import AgentHandle, Holding, Stage
from sliceform.controller.ray_backend.pack import Packed
from sliceform.controller.ray_backend.shipped import Shipped
from sliceform.states.reasons import Reason

KEY = "run-1/1"
SHAPE = CpuSlice(2)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would start or join a cluster of its own for this call."""
    monkeypatch.setattr(ray, "cancel", lambda *_, **__: None)


class Method:
    """One of an agent's methods: answers at once, with what `answer` gives or raises."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer
        self.calls = 0

    def remote(self, *args: Any) -> Any:
        self.calls += 1
        future: Future[Any] = Future()
        try:
            future.set_result(self.answer(*args))
        except exceptions.RayError as error:
            future.set_exception(error)
        return SimpleNamespace(future=lambda: future)


def fails(*_: Any) -> None:
    raise exceptions.RayError("PermissionError: /tmp/sliceform-0 belongs to another user")


class World:
    """A slice of two hosts; what is put to the I/O thread is done by `settle`."""

    def __init__(self, **settings: float) -> None:
        self.posted: list[Any] = []
        self.lost: list[tuple[int, Reason]] = []
        self._jobs: list[Callable[[], None]] = []
        self.agents = tuple(AgentHandle("slice-1", rank, self.actor()) for rank in range(SHAPE.hosts))
        self.holding = Holding("slice-1", SHAPE, reserved=Reserved("slice-1", None, ("n0", "n1")), agents=self.agents)
        fleet = SimpleNamespace(label="f", incarnation="i", settings=Settings(**settings))
        session = SimpleNamespace(fleet=fleet, post=self.posted.append, io=self, when_done=self.when_done)
        run_host = SimpleNamespace(options=self.refuse)
        holdings = {"slice-1": self.holding}
        self.endings = Endings(session, holdings, self, self)  # type: ignore[arg-type]
        self.attempts = Attempts(session, holdings, self.endings, Shipped(None, run_host, None))  # type: ignore[arg-type]

    @staticmethod
    def actor() -> Any:
        return SimpleNamespace(
            prepare=Method(
                lambda _, ports: {"address": "h", "meet": ["h:1", "h:2"] if ports else [], "door": 3, "alive": 4}
            ),
            stop=Method(lambda *_: {"killed": 0, "unasked": False, "cut": ""}),
            notify=Method(lambda *_: None),
        )

    @staticmethod
    def refuse(**_: Any) -> Any:
        raise ValueError("no such option")

    def put(self, job: Callable[[], None], delay_s: float = 0.0) -> None:
        if not delay_s:
            self._jobs.append(job)

    def when_done(self, ref: Any, then: Callable[[Any], None]) -> None:
        ref.future().add_done_callback(lambda answer: self.put(partial(then, answer)))

    def lose(self, agent: AgentHandle, reason: Reason, _: str) -> None:
        agent.closed = True
        self.lost.append((agent.rank, reason))

    def settle(self) -> list[Any]:
        """Do what there is to do; return what was reported meanwhile."""
        before = len(self.posted)
        while self._jobs:
            self._jobs.pop(0)()
        return self.posted[before:]

    def launch(self) -> list[Any]:
        spec = AttemptSpec(KEY, "run-1", 1, ("slice-1",), SHAPE.hosts, Packed(Parcel(b""), {}))
        self.attempts.launch(self.holding, Launch("slice-1", SHAPE, spec, 0))
        return self.settle()


def test_a_task_that_ray_does_not_take_ends_as_refused_on_a_host_that_is_free_again() -> None:
    told = World().launch()
    ended = [event for event in told if isinstance(event, ProcessEnded)]
    assert [(event.rank, event.outcome.kind) for event in ended] == [(rank, OutcomeKind.REFUSED) for rank in range(2)]
    assert "no such option" in ended[0].outcome.detail
    assert sum(isinstance(event, ProcessGone) for event in told) == 2


def test_work_is_let_go_when_it_is_over_and_asked_for_again_it_is_only_told_of_once_more() -> None:
    world = World()
    world.launch()
    (work,) = world.holding.attempts.values()
    assert work.request.attempt.work is None
    world.posted.clear()
    world.launch()
    assert [type(event) for event in world.posted] == [ProcessEnded, ProcessGone] * 2
    assert work is world.holding.attempts[KEY]


def test_a_host_that_cannot_be_prepared_is_tried_again_and_given_up_after_a_while() -> None:
    world = World(placed_s=1e-9)
    world.agents[1].actor.prepare = Method(fails)
    (failure,) = [event for event in world.launch() if isinstance(event, EffectFailed)]
    assert "host 1 could not be prepared" in failure.detail
    assert "belongs to another user" in failure.detail
    assert world.lost == []
    world.launch()
    assert world.lost == [(1, Reason.HOST_UNFIT)]


def test_a_host_that_was_prepared_at_last_has_its_whole_time_again() -> None:
    world = World(placed_s=600.0)
    world.agents[1].actor.prepare = Method(fails)
    world.launch()
    assert world.agents[1].failing_since is not None
    world.agents[1].actor.prepare = world.agents[0].actor.prepare
    world.launch()
    assert (world.agents[1].failing_since, world.lost) == (None, [])


@pytest.mark.parametrize("launched", [True, False])
def test_a_host_that_cannot_be_freed_of_work_is_given_up_after_a_while(launched: bool) -> None:  # noqa: FBT001
    world = World(placed_s=1e-9)
    world.agents[0].actor.stop = Method(fails)
    if launched:
        world.launch()
    for _ in range(2):
        world.endings.stop(world.holding, Stop("slice-1", KEY, 0.0))
        world.settle()
    assert world.lost == [(0, Reason.HOST_UNFIT)]


def test_a_slice_counts_as_told_when_every_host_has_taken_it_in() -> None:
    world = World()
    world.agents[1].actor.notify = Method(fails)
    request = Notify("slice-1", KEY, 5.0)
    world.attempts.notify(world.holding, request)
    (failure,) = world.settle()
    assert isinstance(failure, EffectFailed)
    world.agents[1].actor.notify = world.agents[0].actor.notify
    world.attempts.notify(world.holding, request)
    assert world.settle() == [Notified("slice-1", KEY, 5.0)]


class Running(World):
    """The same with a task per host that runs until `die`; agents answer `stop` when `answer` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Future[Any]] = []
        self.stops: list[Future[Any]] = []
        run_host = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._submit))
        self.attempts._session.disregard = lambda _: None  # type: ignore[method-assign]
        self.attempts._shipped = Shipped(None, run_host, None)  # type: ignore[arg-type]
        for agent in self.agents:
            agent.actor.wait_started = Method(lambda *_: 1)
            agent.actor.stop = SimpleNamespace(remote=lambda *_: self._pend(self.stops))
        self.launch()
        self.posted.clear()

    def _submit(self, *_: Any) -> Any:
        return self._pend(self.tasks), None

    @staticmethod
    def _pend(where: list[Future[Any]]) -> Any:
        future: Future[Any] = Future()
        where.append(future)
        return SimpleNamespace(future=lambda: future)

    def doubt(self, _: AgentHandle, then: Callable[[bool], None]) -> None:
        self.put(partial(then, False))  # noqa: FBT003 - the raylet does not refuse connections

    def die(self, rank: int) -> list[Any]:
        self.tasks[rank].set_exception(exceptions.WorkerCrashedError())
        return self.settle()

    def answer(self, *, unasked: bool, cut: str = "") -> list[Any]:
        for future in self.stops:
            if not future.done():
                future.set_result({"killed": 0, "unasked": unasked, "cut": cut})
        return self.settle()

    def ask(self, how: str) -> None:
        if how == "stop":
            self.endings.stop(self.holding, Stop("slice-1", KEY, 0.0))
        else:
            self.attempts.notify(self.holding, Notify("slice-1", KEY, None))
        self.settle()


def ends(told: list[Any]) -> list[tuple[int, OutcomeKind, bool]]:
    return [(e.rank, e.outcome.kind, e.outcome.unasked) for e in told if isinstance(e, ProcessEnded)]


def test_of_a_process_that_dies_its_host_says_that_nobody_asked_it_to() -> None:
    world = Running()
    assert ends(world.die(1)) == []
    assert ends(world.answer(unasked=True)) == [(1, OutcomeKind.CRASHED, True)]


def test_a_process_that_its_host_ended_by_its_own_clock_is_lost() -> None:
    """It was cut off; that it failed would be blamed on the user's code."""
    world = Running()
    world.die(1)
    told = world.answer(unasked=False, cut="neither the driver nor the GCS was heard for 10.1 s")
    assert ends(told) == [(1, OutcomeKind.LOST, False)]
    (end,) = [event for event in told if isinstance(event, ProcessEnded)]
    assert "neither the driver nor the GCS was heard" in end.outcome.detail


def test_a_process_that_dies_is_told_of_though_its_host_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "_ANSWER_S", 0.0)
    assert ends(Running().die(1)) == [(1, OutcomeKind.CRASHED, True)]


@pytest.mark.parametrize("unasked", [True, False])
@pytest.mark.parametrize("how", ["stop", "notify"])
def test_of_a_process_that_dies_once_its_work_was_asked_to_stop_its_host_says_which_was_first(
    how: str,
    unasked: bool,  # noqa: FBT001
) -> None:
    world = Running()
    world.ask(how)
    world.posted.clear()
    assert ends(world.die(1)) == []
    kind = OutcomeKind.CRASHED if unasked or how == "notify" else OutcomeKind.STOPPED
    assert ends(world.answer(unasked=unasked))[-1:] == [(1, kind, unasked)]


@pytest.mark.parametrize("unasked", [True, False])
def test_its_host_may_say_so_before_ray_tells_that_the_process_died(unasked: bool) -> None:  # noqa: FBT001
    world = Running()
    world.ask("stop")
    assert ends(world.answer(unasked=unasked)) == []
    assert ends(world.die(1)) == [(1, OutcomeKind.CRASHED if unasked else OutcomeKind.STOPPED, unasked)]


def test_what_dies_while_its_slice_is_given_back_was_ended_by_us_unless_its_host_knows_better() -> None:
    world = Running()
    world.holding.stage = Stage.RELEASING
    assert ends(world.die(1)) == []
    assert ends(world.answer(unasked=False)) == [(1, OutcomeKind.STOPPED, False)]


def test_where_the_host_cannot_say_it_was_we_who_ended_it() -> None:
    world = Running()
    world.ask("stop")
    world.die(1)
    world.stops[1].set_exception(exceptions.RayError("lost"))
    assert ends(world.settle()) == [(1, OutcomeKind.STOPPED, False)]


DEAD = exceptions.NodeDiedError("gone")


@pytest.mark.parametrize(
    ("error", "ours", "kind"),
    [
        (DEAD, False, OutcomeKind.LOST),
        (DEAD, True, OutcomeKind.LOST),
        (exceptions.TaskUnschedulableError("gone"), False, OutcomeKind.LOST),
        (exceptions.TaskPlacementGroupRemoved(), False, OutcomeKind.LOST),
        (exceptions.TaskPlacementGroupRemoved(), True, OutcomeKind.STOPPED),
        (exceptions.TaskCancelledError(), False, OutcomeKind.CRASHED),
        (exceptions.TaskCancelledError(), True, OutcomeKind.STOPPED),
        (exceptions.WorkerCrashedError(), False, OutcomeKind.CRASHED),
        (exceptions.WorkerCrashedError(), True, OutcomeKind.STOPPED),
        (exceptions.OutOfMemoryError("too much"), False, OutcomeKind.CRASHED),
        (exceptions.OutOfMemoryError("too much"), True, OutcomeKind.CRASHED),
        (exceptions.RuntimeEnvSetupError("no such package"), False, OutcomeKind.REFUSED),
        (exceptions.RaySystemError(ValueError("x")), False, OutcomeKind.CRASHED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_how_a_task_ended_is_told_by_the_class_of_its_error(error: Exception, ours: bool, kind: OutcomeKind) -> None:  # noqa: FBT001
    """Whatever its text says; `ours`: we are ending it."""
    outcome = outcomes.from_error(error, stopping=ours, releasing=False)
    assert outcome.kind is kind
    if kind is OutcomeKind.REFUSED:
        assert "runtime_env" in outcome.detail
    if isinstance(error, exceptions.OutOfMemoryError):
        assert "out of memory" in outcome.detail


def test_a_value_that_is_lost_with_its_host_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fetched as soon as the function has returned; what comes too late is an error of ours."""
    fetched = []
    monkeypatch.setattr(ray, "wait", lambda refs, **_: fetched.extend(refs))

    def get(_: Any) -> None:
        raise exceptions.ObjectLostError("abc", None, "")

    monkeypatch.setattr(ray, "get", get)
    outcome = outcomes.from_envelope({"status": "returned"}, "ref")
    assert fetched == ["ref"]
    assert outcome.load is not None
    with pytest.raises(ResultLost, match="is lost"):
        outcome.load()
