"""What is remembered between ticks: backoff, places to keep away from, when to stop growing."""

import random
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis import given

from sliceform.controller.model.events import Node
from sliceform.controller.model.settings import Settings
from sliceform.controller.reconcile.decide.policy import AvoidCause, Backoff, Pause, Places, Vacancy

SETTINGS = Settings(avoid_lost_s=300.0, quarantine_after=3, quarantine_s=1800.0)


@given(st.integers(0, 1000), st.integers(1, 40))
def test_backoff_doubles_with_jitter_up_to_its_bound(seed: int, failures: int) -> None:
    full = min(60.0, 0.5 * 2 ** (failures - 1))
    assert full / 2 <= Backoff(0.5, 60.0, random.Random(seed)).until(failures, 100.0) - 100.0 <= full


class TestLostPlace:
    def test_is_avoided_until_none_of_its_lost_nodes_is_seen_alive(self) -> None:
        places = Places(SETTINGS)
        places.lost("a", frozenset({"n1", "n2"}), 0.0, "slice-1: node_died")
        table = {"n1": Node("n1", alive=False), "n2": Node("n2", alive=True)}
        places.settle(1.0, table)
        assert places.names() == {"a"}
        del table["n2"]
        places.settle(2.0, table)
        assert places.names() == frozenset()

    def test_is_avoided_at_most_for_a_while(self) -> None:
        places = Places(SETTINGS)
        places.lost("a", frozenset({"n1"}), 10.0, "")
        assert places.due(None) == places.due(10.0) == 310.0
        places.settle(309.0, {"n1": Node("n1", alive=True)})
        assert places.names() == {"a"}
        places.settle(310.0)
        assert (places.names(), places.due(None)) == (frozenset(), float("inf"))

    def test_the_first_that_may_be_used_again_is_waited_for(self) -> None:
        places = Places(Settings(avoid_lost_s=300.0))
        places.avoid("b", 100.0, "odd")
        places.lost("a", frozenset({"n1"}), 10.0, "lost")
        places.avoid("c", None, "odd")
        assert places.due(None) == 100.0
        assert places.reasons() == {"b": "ordered: odd", "a": "lost: lost", "c": "ordered: odd"}

    def test_without_a_look_at_the_nodes_only_time_lets_go(self) -> None:
        places = Places(SETTINGS)
        places.lost("a", frozenset({"n1"}), 0.0, "")
        places.settle(1.0, None)
        assert places.names() == {"a"}
        places.settle(1.0, {})
        assert places.names() == frozenset()

    def test_a_second_loss_does_not_begin_anew(self) -> None:
        places = Places(SETTINGS)
        places.lost("a", frozenset({"n1"}), 0.0, "first")
        places.lost("a", frozenset({"n2"}), 100.0, "second")
        assert (places.avoided["a"].until, places.avoided["a"].detail) == (300.0, "first")


class TestFailingPlace:
    ALIVE: ClassVar = {"n1": Node("n1", alive=True), "n2": Node("n2", alive=True)}

    def fail(self, places: Places, *times: float, place: str = "a", node: str = "n1") -> list[bool]:
        return [places.failed(place, node, now, "agent_failed") for now in times]

    def test_is_quarantined_after_some_failures_of_one_node(self) -> None:
        places = Places(SETTINGS)
        assert self.fail(places, 0.0, 1.0, 2.0) == [False, False, True]
        assert places.avoided["a"].cause is AvoidCause.QUARANTINED
        places.settle(1801.0, self.ALIVE)
        assert places.names() == {"a"}
        places.settle(1802.0, self.ALIVE)
        assert places.names() == frozenset()

    def test_its_nodes_are_counted_apart(self) -> None:
        places = Places(SETTINGS)
        assert self.fail(places, 0.0, 1.0) + self.fail(places, 2.0, 3.0, node="n2") == [False] * 4
        assert self.fail(places, 4.0) == [True]

    def test_failures_age(self) -> None:
        places = Places(SETTINGS)
        assert self.fail(places, 0.0, 1000.0, 1800.0, 2799.0) == [False, False, False, True]

    def test_is_forgiven_once_it_has_worked(self) -> None:
        places = Places(SETTINGS)
        self.fail(places, 0.0, 0.0)
        places.worked("n1")
        assert self.fail(places, 0.0) == [False]

    def test_is_forgotten_with_the_node(self) -> None:
        places = Places(SETTINGS)
        self.fail(places, 0.0, 1.0, 2.0)
        self.fail(places, 0.0, 1.0, place="b", node="n2")
        places.settle(3.0, {"n1": Node("n1", alive=False)})
        assert (places.names(), places.strikes) == (frozenset(), {})

    def test_is_tried_once_more_for_a_slice_that_waits_after_twice_as_long_each_time(self) -> None:
        places = Places(SETTINGS)
        self.fail(places, 0.0, 0.0, 0.0)
        places.settle(100.0)
        assert places.names() == {"a"}, "nobody waits"
        for begin, pause in ((200.0, 60.0), (300.0, 120.0), (500.0, 240.0)):
            assert places.due(begin) == begin + pause
            places.settle(begin + pause - 1.0, self.ALIVE, begin)
            assert places.names() == {"a"}
            places.settle(begin + pause, self.ALIVE, begin)
            assert places.names() == frozenset()
            assert self.fail(places, begin + pause) == [True]

    def test_a_slice_that_has_long_waited_for_others_does_not_break_it_off_at_once(self) -> None:
        places = Places(SETTINGS)
        self.fail(places, 1000.0, 1000.0, 1000.0)
        places.settle(1001.0, self.ALIVE, 0.0)
        assert places.names() == {"a"}

    def test_the_names_are_those_of_the_moment(self) -> None:
        places = Places(SETTINGS)
        assert places.names() == frozenset()
        places.lost("a", frozenset({"n1"}), 0.0, "")
        self.fail(places, 0.0, 0.0, 0.0, place="b")
        assert places.names() == {"a", "b"}
        places.settle(300.0)
        assert places.names() == {"b"}


def test_growth_pauses_twice_as_long_each_time_up_to_a_bound() -> None:
    pause, lengths = Pause(), []
    for _ in range(9):
        pause = pause.begin(1000.0, 300.0)
        lengths.append(pause.until - 1000.0)
    assert lengths[:3] == [300.0, 600.0, 1200.0]
    assert lengths[-1] == 300.0 * 16
    assert pause.end() == Pause(0.0, 9)


def test_a_vacancy_keeps_its_failures_until_its_slice_has_been_ready() -> None:
    backoff = Backoff(0.5, 60.0, random.Random(0))
    first = Vacancy.of("slice-1", None).failed(backoff, 100.0, "quota")
    assert (first.lost, first.failures, first.detail) == (False, 1, "quota")
    assert 100.25 <= first.not_before <= 100.5
    second = Vacancy.of("slice-2", first).failed(backoff, 200.0, "quota")
    assert second.failures == 2
    assert Vacancy.of("slice-3", second, lost=True) == Vacancy("slice-3", lost=True, failures=2, detail="quota")
    assert Vacancy.of("slice-4", None, lost=True).failures == 0
