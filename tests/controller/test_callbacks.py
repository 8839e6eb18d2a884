"""Callbacks: told of everything, on threads of their own, and harmless whatever they do."""

import threading
import time

import pytest
import structlog

from sliceform.controller import ConfigurationError, CpuSlice, FleetClosedError, SliceController
from sliceform.controller.api import closing as api_module
from sliceform.controller.model.clock import SystemClock
from sliceform.controller.model.settings import Settings
from sliceform.controller.testing import SimBackend

BOUND_S = 20.0


class Told:
    """A callback that keeps what it was told, and can be waited for."""

    def __init__(self, do=lambda value: None):
        self.values = []
        self._do = do
        self._told = threading.Condition()

    def __call__(self, value):
        with self._told:
            self.values.append(value)
            self._told.notify_all()
        self._do(value)

    def until(self, done):
        with self._told:
            assert self._told.wait_for(lambda: done(self.values), BOUND_S), self.values


def real_time_fleet(slices, **settings):
    sim = SimBackend(CpuSlice(), 4, clock=SystemClock(), place_s=0.02, agent_s=0.02, work_s=0.05)
    return SliceController(CpuSlice(), slices, backend=sim, settings=Settings(resync_s=0.02, **settings))


@pytest.fixture
def fleet():
    """A fleet that ticks by itself, in real time."""
    made = real_time_fleet(2)
    yield made
    made.close(grace_s=0.0)


@pytest.fixture
def errors(monkeypatch):
    """What callbacks log, as (level, event, fields)."""
    caught = []

    def keep(_, level, fields):
        caught.append((level, fields["event"], fields))
        raise structlog.DropEvent

    structlog.configure(processors=[keep], wrapper_class=structlog.BoundLogger)
    return lambda event: [fields for _, name, fields in caught if name == event]


def test_every_change_is_told_once_and_in_order(fleet):
    told = Told()
    fleet.on_change(told)
    with fleet:
        fleet.wait_ready(2, BOUND_S)
    assert told.values == list(fleet.history)


def test_an_attempt_is_told_when_it_begins_and_when_it_ends(fleet):
    told = Told()
    fleet.on_attempt(told)
    with fleet:
        assert fleet.run(pow, 2, 5).values == [32, 32]
    begun, ended = told.values
    assert (begun.key, begun.outcome, begun.ended_at, begun.hosts[0].outcome) == ("run-1/1", None, None, None)
    assert (ended.key, ended.outcome, ended.hosts[0].outcome) == ("run-1/1", "succeeded", "returned")


def test_one_that_comes_late_is_told_only_of_what_comes_later(fleet):
    with fleet:
        fleet.wait_ready(2, BOUND_S)
        before = fleet.history.last_seq
        told = Told()
        fleet.on_change(told)
        fleet.drain("slice-1")
        told.until(lambda values: any(change.trigger == "release" for change in values))
    assert told.values[0].seq > before


def test_one_that_was_removed_is_told_nothing_more(fleet):
    told, other = Told(), Told()
    callback = fleet.on_change(told)
    fleet.on_change(other)
    with fleet:
        fleet.wait_ready(2, BOUND_S)
        told.until(bool)
        callback.remove()
        callback.remove()
        time_of_removal = fleet.history.last_seq
        fleet.drain("slice-1")
        other.until(lambda values: values[-1].seq > time_of_removal + 3)
    assert told.values[-1].seq <= time_of_removal


def test_one_that_removes_itself_is_called_once(fleet):
    handle = []
    told = Told(lambda _: handle[0].remove())
    handle.append(fleet.on_change(told))
    with fleet:
        fleet.wait_ready(2, BOUND_S)
    assert len(told.values) == 1


@pytest.mark.parametrize("error", [RuntimeError("no network"), SystemExit(3)], ids=["an error", "sys.exit"])
def test_one_that_raises_is_called_again_and_logged_ever_more_rarely(fleet, errors, error):
    def fail(_):
        raise error

    told = Told(fail)
    callback = fleet.on_change(told)
    with fleet:
        fleet.wait_ready(2, BOUND_S)
    assert callback.errors == len(told.values) == fleet.history.last_seq > 4
    logged = errors("callback_failed")
    assert [line["errors"] for line in logged] == [2**n for n in range(callback.errors.bit_length())]
    assert all("fail" in line["callback"] or "Told" in line["callback"] for line in logged)


def test_one_that_hangs_harms_neither_the_fleet_nor_the_others_nor_the_end(fleet, monkeypatch):
    monkeypatch.setattr(api_module, "_FOLLOW_S", 0.2)
    free, told = threading.Event(), Told()
    hung = [Told(lambda _: free.wait(BOUND_S)) for _ in range(4)]
    try:
        for callback in hung:
            fleet.on_change(callback)
        fleet.on_change(told)
        with fleet:
            assert fleet.run(pow, 2, 5).values == [32, 32]
            hung[0].until(bool)
            begun = time.monotonic()
        assert time.monotonic() - begun < BOUND_S / 2
        assert told.values == list(fleet.history)
    finally:
        free.set()
    assert all(len(callback.values) == 1 for callback in hung), "called after the fleet was closed"


def test_what_the_history_forgets_before_a_slow_one_comes_to_it_is_counted(errors):
    free = threading.Event()
    told = Told(lambda _: free.wait(BOUND_S))
    fleet = real_time_fleet(4, history_limit=16)
    callback = fleet.on_change(told)
    with fleet:
        fleet.wait_ready(4, BOUND_S)
        told.until(bool)
        for _ in range(3):
            fleet.run(pow, 2, 5)
        free.set()
    assert callback.missed > 0
    assert len(told.values) + callback.missed == fleet.history.last_seq
    assert sum(line["missed"] for line in errors("callback_missed")) == callback.missed


def test_the_fleet_may_be_asked_and_told_from_a_callback(fleet):
    """Whatever it calls, neither it nor the loop waits for the other for ever."""
    seen, drained = [], []

    def act(change):
        seen.append(fleet.status().tick)
        if change.kind == "slice" and change.trigger == "prepare" and not drained:
            drained.append(change.key)
            fleet.drain(change.key)
            fleet.scale(1)
            fleet.plan()
            fleet.on_change(lambda _: None).remove()
            seen.append(fleet.submit(pow, 2, 5).result(BOUND_S).values)

    told = Told(act)
    fleet.on_change(told)
    with fleet:
        told.until(lambda values: any(c.trigger == "release" and [c.key] == drained for c in values))
    assert [32] in seen


def test_the_fleet_may_be_closed_from_a_callback(fleet):
    closed = threading.Event()

    def close(change):
        if change.trigger == "prepare" and not closed.is_set():
            fleet.close(grace_s=0.0)
            closed.set()

    fleet.on_change(Told(close))
    fleet.start()
    assert closed.wait(BOUND_S)
    assert not fleet.status().slices


@pytest.mark.parametrize("fn", [3, None])
def test_what_cannot_be_called_is_refused(fleet, fn):
    with pytest.raises(ConfigurationError, match="plain function"):
        fleet.on_change(fn)


def test_a_coroutine_is_refused(fleet):
    async def later(_): ...

    with pytest.raises(ConfigurationError, match="plain function"):
        fleet.on_attempt(later)


def test_a_closed_fleet_refuses_callbacks(fleet):
    fleet.start()
    fleet.close()
    with pytest.raises(FleetClosedError):
        fleet.on_change(print)


def test_no_thread_is_left(fleet):
    fleet.on_change(Told())
    fleet.on_attempt(Told())
    with fleet:
        fleet.wait_ready(2, BOUND_S)
    ours = ("sliceform-log", "sliceform-callback", "sliceform-metrics")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)] == []
