"""Who takes part in an attempt in what order, and how it ended."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sliceform.controller.model.effects import AttemptSpec
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.reconcile.decide.run import (
    ATTEMPTS_KEPT,
    Attempt,
    Departure,
    Ended,
    Left,
    RunOptions,
    RunRecord,
    Verdict,
    assign,
    may_retry,
)
from sliceform.controller.reconcile.decide.verdict import classify

RETURNED = Outcome(OutcomeKind.RETURNED)


def attempt(members: int = 2, hosts: int = 2) -> Attempt:
    names = tuple(f"slice-{number}" for number in range(1, members + 1))
    return Attempt(AttemptSpec("run-1/1", "run-1", 1, names, hosts, None), 0.0)


@st.composite
def assignments(draw: Any) -> tuple[tuple[str, ...], list[str], int]:
    names = [f"slice-{number}" for number in range(12)]
    previous = tuple(draw(st.permutations(names))[: draw(st.integers(0, 6))])
    available = draw(st.permutations(names))[: draw(st.integers(1, 12))]
    return previous, available, draw(st.integers(1, len(available)))


class TestAssign:
    @given(assignments())
    def test_takes_so_many_that_are_there_each_once(self, drawn: tuple[tuple[str, ...], list[str], int]) -> None:
        previous, available, size = drawn
        members = assign(previous, available, size)
        assert len(members) == len(set(members)) == size
        assert set(members) <= set(available)

    @given(assignments())
    def test_at_the_same_size_survivors_keep_their_rank(self, drawn: tuple[tuple[str, ...], list[str], int]) -> None:
        previous, available, size = drawn
        if size != len(previous):
            return
        members = assign(previous, available, size)
        for rank, old in enumerate(previous):
            assert (members[rank] == old) == (old in available)

    @given(assignments())
    def test_at_another_size_survivors_come_first_in_order(self, drawn: tuple[tuple[str, ...], list[str], int]) -> None:
        previous, available, size = drawn
        if size == len(previous):
            return
        survivors = [life for life in previous if life in available]
        members = assign(previous, available, size)
        kept = min(size, len(survivors))
        assert list(members[:kept]) == survivors[:kept]
        assert not set(members[kept:]) & set(previous)

    def test_by_example(self) -> None:
        assert assign(("a", "b", "c"), ["c", "a", "d", "e"], 3) == ("a", "d", "c")
        assert assign(("a", "b", "c"), ["c", "a"], 2) == ("a", "c")
        assert assign(("a", "b"), ["d", "b", "a"], 3) == ("a", "b", "d")
        assert assign((), ["a", "b", "c"], 2) == ("a", "b")


class TestOutcomes:
    def test_the_first_answer_of_a_host_counts(self) -> None:
        one = attempt(1, 1)
        one.record("slice-1", 0, Outcome(OutcomeKind.RAISED, "ValueError"))
        one.record("slice-1", 0, RETURNED)
        assert one.outcomes[0, 0].kind is OutcomeKind.RAISED
        assert not one.succeeded

    @given(st.sets(st.tuples(st.integers(1, 2), st.integers(0, 1))))
    def test_succeeds_only_if_every_host_of_every_slice_returned(self, answered: set[tuple[int, int]]) -> None:
        one = attempt()
        for number, rank in answered:
            one.record(f"slice-{number}", rank, RETURNED)
        assert one.succeeded == (len(answered) == 4)

    def test_ranks_count_through_all_slices(self) -> None:
        one = attempt()
        assert [(one.rank(key), one.host(key)) for key in [(0, 1), (1, 1)]] == [(1, "slice-1/1"), (3, "slice-2/1")]


def ended(
    outcomes: dict[tuple[int, int], OutcomeKind],
    departures: dict[str, Departure] | None = None,
    *,
    cancelled: bool = False,
) -> Ended:
    one = attempt()
    for (slice_rank, host_rank), kind in outcomes.items():
        one.record(one.spec.members[slice_rank], host_rank, Outcome(kind, "why"))
    for life, why in (departures or {}).items():
        one.leave(life, Left(why, "detail", life))
    found = classify(one, cancelled=cancelled)
    assert found.detail
    assert found.host or found.ended in {Ended.SUCCEEDED, Ended.CANCELLED}
    return found.ended


ALL = dict.fromkeys([(0, 0), (0, 1), (1, 0), (1, 1)], OutcomeKind.RETURNED)
RAISED = {(0, 0): OutcomeKind.RAISED}
LOST = {(0, 0): OutcomeKind.LOST}


@pytest.mark.parametrize(
    ("outcomes", "departures", "cancelled", "expected"),
    [
        pytest.param(ALL, {"slice-1": Departure.PREEMPTED}, True, Ended.SUCCEEDED, id="all returned, whatever else"),
        pytest.param(RAISED, {"slice-1": Departure.PREEMPTED}, True, Ended.CANCELLED, id="cancelled"),
        pytest.param(RAISED, {"slice-1": Departure.PREEMPTED}, False, Ended.PREEMPTED, id="raised because preempted"),
        pytest.param({}, {"slice-1": Departure.TAKEN}, False, Ended.SUPERSEDED, id="we took a slice"),
        pytest.param(RAISED, {"slice-1": Departure.TAKEN}, False, Ended.FAILED, id="raised before we took a slice"),
        pytest.param(
            {}, {"slice-1": Departure.TAKEN, "slice-2": Departure.PREEMPTED}, False, Ended.PREEMPTED, id="taken first"
        ),
        pytest.param(
            {}, {"slice-1": Departure.PREEMPTED, "slice-2": Departure.TAKEN}, False, Ended.PREEMPTED, id="lost first"
        ),
        pytest.param(RAISED, {}, False, Ended.FAILED, id="raised"),
        pytest.param({(1, 1): OutcomeKind.CRASHED}, {}, False, Ended.FAILED, id="crashed"),
        pytest.param({(1, 1): OutcomeKind.REFUSED}, {}, False, Ended.FAILED, id="could not be started"),
        pytest.param({}, {"slice-2": Departure.FAILED}, False, Ended.FAILED, id="agent died, node lives"),
        pytest.param(LOST, {"slice-2": Departure.FAILED}, False, Ended.FAILED, id="agent died, its process with it"),
        pytest.param(LOST, {}, False, Ended.PREEMPTED, id="host lost under it"),
        pytest.param({(0, 0): OutcomeKind.STOPPED}, {}, False, Ended.FAILED, id="stopped by nobody known"),
    ],
)
def test_how_an_attempt_ended(
    outcomes: dict[tuple[int, int], OutcomeKind],
    departures: dict[str, Departure],
    cancelled: bool,  # noqa: FBT001 - a parameter of the table
    expected: Ended,
) -> None:
    assert ended(outcomes, departures, cancelled=cancelled) is expected


def test_budgets_are_counted_apart() -> None:
    run = RunRecord("run-1", None, RunOptions(max_preemptions=1, max_failures=0), 0.0, lambda _: None)
    run.preemptions = 1
    assert may_retry(run)
    run.failures = 1
    assert not may_retry(run)
    run.failures, run.preemptions = 0, 2
    assert not may_retry(run)


def test_an_open_charge_counts_against_both_budgets() -> None:
    run = RunRecord("run-1", None, RunOptions(max_preemptions=2, max_failures=1), 0.0, lambda _: None)
    run.unsettled = [attempt()]
    assert may_retry(run)
    run.preemptions = 1
    assert may_retry(run)
    run.preemptions = 2
    assert not may_retry(run)
    run.preemptions, run.failures = 0, 1
    assert not may_retry(run)


class TestWhatARunKeeps:
    @staticmethod
    def run(count: int) -> RunRecord:
        record = RunRecord("run-1", None, RunOptions(), 0.0, lambda _: None)
        for number in range(1, count + 1):
            one = Attempt(AttemptSpec(f"run-1/{number}", "run-1", number, ("slice-1",), 1, None), 0.0)
            record.begin(one)
            one.record("slice-1", 0, Outcome(OutcomeKind.RAISED, "why", "traceback", b"error", load=lambda: 1))
            one.verdict = classify(one, cancelled=False)
        return record

    def test_is_its_first_attempt_and_the_newest(self) -> None:
        record = self.run(ATTEMPTS_KEPT + 3)
        assert [one.spec.number for one in record.attempts] == [1, *range(5, ATTEMPTS_KEPT + 4)]
        assert (record.tries, record.forgotten) == (ATTEMPTS_KEPT + 3, 3)

    def test_holds_values_and_exceptions_of_the_last_alone(self) -> None:
        first, last = self.run(2).attempts
        assert first.outcomes == {(0, 0): Outcome(OutcomeKind.RAISED, "why")}
        assert first.verdict == Verdict(Ended.FAILED, "rank 0 (slice-1/0): why", "slice-1/0")
        assert last.outcomes[0, 0].error == b"error"
        assert last.verdict is not None
        assert last.verdict.outcome is last.outcomes[0, 0]
