"""The backend that loses, repeats, delays and refuses: what it may do to messages, and what it must not."""

from collections.abc import Mapping
from typing import Any

import pytest

from sliceform.controller.errors import BackendError
from sliceform.controller.model.backend import Finding, FleetIdentity, Sink
from sliceform.controller.model.effects import EffectRequest, Release, Reserve
from sliceform.controller.model.events import (
    AgentUp,
    EffectFailed,
    Event,
    Node,
    NodesSeen,
    ObservationFailed,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    Refused,
    Released,
)
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FakeClock, FaultyBackend

SHAPE = TpuSlice("v4-16")
IDENTITY = FleetIdentity(None, "test", "test-1", SHAPE, Settings())
RESERVE = Reserve("a", SHAPE)
UP = AgentUp("a", 0, "node", "10.0.0.1", 4)


class Script:
    """A backend that keeps what it is asked for and tells what it is told to tell."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.asked: list[EffectRequest] = []
        self.tell: list[Event] = []
        self.closed = False

    def open(self, fleet: FleetIdentity, sink: Sink) -> None:
        self.sink = sink

    def submit(self, request: EffectRequest) -> None:
        self.asked.append(request)

    def forget(self, slice_id: str) -> None:
        self.asked.clear()

    def poll(self) -> None:
        assert self.sink is not None
        while self.tell:
            self.sink.post(self.tell.pop(0))

    def explain(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
        return (Finding("waiting", slice_id),)

    def inquire(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> None:
        pass

    def pack(
        self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], runtime_env: Mapping[str, Any] | None = None
    ) -> Any:
        return (fn, args, kwargs)

    def close(self) -> None:
        self.closed = True


class Rig:
    """A faulty backend around a script, and a sink."""

    def __init__(self, seed: int = 0, **probabilities: float) -> None:
        self.clock = FakeClock()
        self.script = Script()
        self.faulty = FaultyBackend(self.script, seed, clock=self.clock, **probabilities)
        self.events: list[Event] = []
        self.beats = 0
        self.faulty.open(IDENTITY, self)

    def post(self, event: Event) -> None:
        self.events.append(event)

    def beat(self, slice_id: str, rank: int, *, raylet_ok: bool = True) -> None:
        self.beats += 1

    def tell(self, *events: Event) -> list[Event]:
        """Let the backend inside tell these; return what has come out until now."""
        self.script.tell.extend(events)
        self.faulty.poll()
        return self.events

    @property
    def faults(self) -> list[str]:
        return [injected.fault for injected in self.faulty.log]


def test_without_faults_everything_passes() -> None:
    rig = Rig()
    rig.faulty.submit(RESERVE)
    assert rig.script.asked == [RESERVE]
    assert rig.tell(UP) == [UP]
    rig.faulty.beat("a", 0)
    assert rig.beats == 1
    assert rig.faulty.explain("a", None, {}) == (Finding("waiting", "a"),)
    assert rig.faulty.pack(len, ("x",), {}) == (len, ("x",), {})
    rig.faulty.forget("a")
    rig.faulty.close()
    assert rig.script.asked == []
    assert rig.script.closed
    assert rig.faulty.log == []


def test_what_is_asked_of_a_life_that_was_forgotten_is_refused() -> None:
    rig = Rig()
    rig.faulty.forget("a")
    with pytest.raises(BackendError, match="a was forgotten"):
        rig.faulty.forget("a")
    with pytest.raises(BackendError, match="a was forgotten"):
        rig.faulty.submit(RESERVE)
    assert rig.script.asked == []


def test_requests_are_dropped() -> None:
    rig = Rig(drop_request=1.0)
    rig.faulty.submit(RESERVE)
    assert (rig.script.asked, rig.faults) == ([], ["drop_request"])


def test_requests_are_repeated() -> None:
    rig = Rig(repeat_request=1.0)
    rig.faulty.submit(RESERVE)
    assert rig.script.asked == [RESERVE, RESERVE]


@pytest.mark.parametrize(("fault", "done"), [("refuse", []), ("refuse_but_do", [RESERVE])])
def test_effects_fail_whether_or_not_they_were_done(fault: str, done: list[EffectRequest]) -> None:
    rig = Rig(**{fault: 1.0})
    rig.faulty.submit(RESERVE)
    (failed,) = rig.events
    assert isinstance(failed, EffectFailed)
    assert (failed.slice_id, failed.effect) == ("a", RESERVE.effect)
    assert rig.script.asked == done


def test_only_reservations_are_refused_for_good() -> None:
    rig = Rig(refuse_place=1.0)
    rig.faulty.submit(RESERVE)
    rig.faulty.submit(Release("a", 0.0))
    assert [type(event) for event in rig.events] == [Refused]
    assert rig.script.asked == [Release("a", 0.0)]


def test_answers_are_lost_but_not_those_that_nobody_gives_again() -> None:
    ended = ProcessEnded("a", 0, "run-1/1", Outcome(OutcomeKind.RETURNED))
    assert Rig(lose=1.0).tell(UP, ended) == [ended]


def test_answers_come_late_and_in_another_order() -> None:
    rig = Rig(delay=1.0, late_s=5.0)
    events: list[Event] = [AgentUp("a", rank, "node", "", 4) for rank in range(20)]
    assert rig.tell(*events) == []
    assert rig.faulty.pending == 20
    rig.clock.advance(5.0)
    assert rig.tell() != events
    assert sorted(rig.events, key=events.index) == events


def test_answers_come_twice() -> None:
    rig = Rig(repeat=1.0)
    assert rig.tell(UP) == [UP]
    rig.clock.advance(5.0)
    assert rig.tell() == [UP, UP]


def test_a_node_table_after_failures_brings_all_that_was_missed() -> None:
    rig = Rig(fail_observation=1.0)
    nodes = {"n": Node("n", alive=True)}
    assert [type(e) for e in rig.tell(NodesSeen(nodes, frozenset("n")))] == [ObservationFailed]
    rig.faulty.heal()
    rig.tell(NodesSeen(nodes, frozenset("m")))
    assert rig.events[-1] == NodesSeen(nodes, frozenset("nm"))
    rig.tell(NodesSeen(nodes, frozenset()))
    assert rig.events[-1] == NodesSeen(nodes, frozenset())


def test_failures_to_observe_pass() -> None:
    assert Rig(lose=1.0).tell(ObservationFailed("down")) == [ObservationFailed("down")]


def test_beats_are_not_heard() -> None:
    rig = Rig(lose_beat=1.0)
    rig.faulty.beat("a", 0)
    assert rig.beats == 0


def test_healed_injects_nothing_but_still_delivers_what_is_late() -> None:
    rig = Rig(delay=1.0)
    rig.tell(UP)
    rig.faulty.heal()
    assert rig.tell(Released("a")) == [Released("a")]
    rig.clock.advance(5.0)
    assert rig.tell() == [Released("a"), UP]


def test_the_same_seed_injects_the_same_faults() -> None:
    def faults(seed: int) -> list[str]:
        rig = Rig(seed, lose=0.3, delay=0.3, repeat=0.3)
        rig.tell(*[UP] * 50)
        return rig.faults

    assert faults(1) == faults(1) != faults(2)


def test_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match="lose must be between 0 and 1, not 2"):
        Rig(lose=2)
    with pytest.raises(ValueError, match="give the clock"):
        FaultyBackend(Script())
