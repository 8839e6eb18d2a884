"""What is told of a run of which not everything is kept."""

import pytest

from sliceform.states import AttemptRecord, Change, HostEnd, Reason
from sliceform.states.history.run_stories import Traces, tell_run

SUBMITTED = Change(1, 1, 1.0, "run", "run-1", None, None, None, Reason.RUN_SUBMITTED)


def attempt(ended=None, outcome=None, detail=""):
    return AttemptRecord("run-1", 1, ("slice-1",), (HostEnd("slice-1/0", "node"),), 2.0, ended, outcome, detail)


@pytest.mark.parametrize(
    ("last", "state", "ended_at", "pauses"),
    [
        (attempt(), "running", None, 0),
        (attempt(5.0, "succeeded", "every host returned"), "succeeded", 5.0, 0),
        (attempt(5.0, "cancelled", "by hand"), "cancelled", 5.0, 0),
        (attempt(5.0, "failed", "it raised"), "unknown", None, 0),
        (attempt(5.0, "preempted", "it was lost"), "unknown", None, 0),
    ],
)
def test_without_any_note_the_last_attempt_says_what_it_can(last, state, ended_at, pauses):
    told = tell_run("run-1", (), (last,), Traces.of(()))
    assert (told.state, told.submitted_at, told.ended_at, len(told.pauses)) == (state, None, ended_at, pauses)
    assert last.detail in told.detail


def test_a_run_waits_if_its_end_would_have_been_kept():
    told = tell_run("run-1", (SUBMITTED,), (attempt(5.0, "preempted", "it was lost"),), Traces.of(()))
    assert (told.state, told.detail, told.submitted_at) == ("waiting", "attempt 1 preempted: it was lost", 1.0)
    assert [pause.stopped_at for pause in told.pauses] == [5.0]
    assert tell_run("run-1", (SUBMITTED,), (), Traces.of(())).state == "waiting"


def test_work_stands_still_from_when_the_first_of_its_processes_ended():
    finished = [
        Change(seq, 1, at, "host", key, "finish", "running", "ready", Reason.PROCESS_GONE, "run-1/1")
        for seq, (at, key) in enumerate([(4.0, "slice-1/1"), (3.0, "slice-1/0")], 2)
    ]
    placed = Change(4, 1, 1.0, "host", "slice-1/0", "place", "pending", "placed", Reason.PLACED, "run-1/1")
    told = tell_run("run-1", (SUBMITTED,), (attempt(5.0, "failed", "it raised"),), Traces.of([*finished, placed]))
    assert [pause.stopped_at for pause in told.pauses] == [3.0]
