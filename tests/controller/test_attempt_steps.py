"""Every attempt is told as it began and as it ended, whatever became of it afterwards."""

from sliceform.controller.follow import attempt_steps
from sliceform.controller.follow.attempt_steps import AttemptSteps, Once
from sliceform.states import AttemptRecord

OPEN = AttemptRecord("run-1", 1, ("slice-1",), (), 1.0, None, None, "")
FAILED = OPEN._replace(ended_at=2.0, outcome="failed")
PREEMPTED = FAILED._replace(outcome="preempted")


def test_one_that_began_and_ended_between_two_looks_is_told_twice():
    assert list(AttemptSteps().of([FAILED])) == [OPEN, FAILED]


def test_one_that_is_charged_anew_is_told_as_ended_and_does_not_begin_again():
    steps = AttemptSteps()
    assert list(steps.of([FAILED])) == [OPEN, FAILED]
    assert list(steps.of([PREEMPTED])) == [PREEMPTED]


def test_those_from_before_do_not_begin():
    assert list(AttemptSteps([OPEN]).of([FAILED])) == [FAILED]


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(attempt_steps, "_REMEMBERED", 2)
    once = Once()
    assert [once.first(key) for key in "aabca"] == [True, False, True, True, True]
