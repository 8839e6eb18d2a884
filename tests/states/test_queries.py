"""What can be asked of any history: selections, lines of slices, runs and their pauses, durations."""

import json

import pytest

from sliceform.states import AttemptRecord, History, HostEnd, Reason
from sliceform.states.history.durations import measure


def add(history, key, trigger, source, dest, at, reason="desired", **more):  # noqa: PLR0917 - as a line reads
    kind = "run" if key.startswith("run") else "host" if "/" in key else "slice"
    return history.append(
        tick=1, at=at, kind=kind, key=key, trigger=trigger, source=source, dest=dest, reason=reason, **more
    )


def attempt(number, members, began, ended=None, outcome=None):
    hosts = tuple(HostEnd(f"{name}/0", "node") for name in members)
    return AttemptRecord("run-1", number, members, hosts, began, ended, outcome)


@pytest.fixture
def incident():
    """A run on two slices; the second is lost at 20, replaced, and the run goes on at 27."""
    history = History()
    for name in ("slice-1", "slice-2"):
        add(history, name, "create", None, "pending", 0.0)
        add(history, name, "place", "pending", "placed", 1.0, "placed", detail="on rack")
        add(history, name, "prepare", "placed", "ready", 2.0)
    add(history, "run-1", None, None, None, 5.0, Reason.RUN_SUBMITTED)
    for name in ("slice-1", "slice-2"):
        add(history, name, "start", "ready", "running", 5.0)
    history.attempts.record(attempt(1, ("slice-1", "slice-2"), 5.0))
    for name in ("slice-1", "slice-2"):
        add(history, f"{name}/0", "start", "ready", "running", 6.0, detail="run-1/1")
    add(history, "slice-2", "preempt", "running", "preempted", 20.0, "node_died", cause="slice-2/0")
    add(history, "slice-2", "drain", "preempted", "draining", 20.0, "lost")
    add(history, "slice-3", "create", None, "pending", 20.0, "replacement", cause="slice-2")
    history.attempts.record(attempt(1, ("slice-1", "slice-2"), 5.0, 21.0, "preempted"))
    add(history, "slice-2", "release", "draining", None, 22.0)
    add(history, "slice-3", "place", "pending", "placed", 23.0)
    add(history, "slice-3", None, "placed", "placed", 23.5, "effect_failed", detail="assemble failed (1)")
    add(history, "slice-3", "prepare", "placed", "ready", 25.0)
    history.attempts.record(attempt(2, ("slice-1", "slice-3"), 26.0))
    add(history, "slice-1/0", "start", "ready", "running", 26.5, detail="run-1/2")
    add(history, "slice-3/0", "start", "ready", "running", 27.0, detail="run-1/2")
    return history


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"reason": "node_died"}, ["slice-2"]),
        ({"state": "running", "kind": "slice"}, ["slice-1", "slice-2"]),
        ({"key": "slice-3", "kind": "host"}, ["slice-3/0"]),
        ({"key": "slice-3/0"}, ["slice-3/0"]),
        ({"after": 26.5, "before": 27.0}, ["slice-1/0"]),
        ({"after": 22.0, "limit": 2}, ["slice-1/0", "slice-3/0"]),
        ({"limit": 0}, []),
        ({"reason": "silent"}, []),
    ],
)
def test_changes_are_selected_by_all_that_is_said(incident, wanted, found):
    assert [change.key for change in incident.select(**wanted)] == found


def test_a_limit_below_nothing_is_refused(incident):
    with pytest.raises(ValueError, match="0 or more"):
        incident.select(limit=-1)


def test_notes_are_what_moved_nothing(incident):
    assert [note.reason for note in incident.notes()] == ["run_submitted", "effect_failed"]
    assert [note.reason for note in incident.notes("slice-3")] == ["effect_failed"]


@pytest.mark.parametrize("slice_id", ["slice-2", "slice-3"])
def test_a_line_of_slices_is_found_from_both_ends(incident, slice_id):
    old, new = incident.lineage(slice_id)
    assert (old.slice_id, old.replaces, old.ready_at, old.gone_at) == ("slice-2", None, 2.0, 22.0)
    assert (old.lost.reason, old.lost.cause) == ("node_died", "slice-2/0")
    assert (new.slice_id, new.replaces, new.created_at, new.ready_at, new.lost) == (
        "slice-3",
        "slice-2",
        20.0,
        25.0,
        None,
    )


def test_who_was_never_there_has_no_line(incident):
    assert incident.lineage("slice-9") == ()
    assert [link.slice_id for link in incident.lineage("slice-1")] == ["slice-1"]


class Shifting(History):
    """A history that a writer adds a replacement to after every look."""

    def window(self):
        seen = super().window()
        number = self.last_seq + 1
        add(self, f"slice-{number}", "create", None, "pending", number, "replacement", cause=f"slice-{number - 1}")
        return seen


def test_lines_are_told_from_one_look():
    history = Shifting()
    add(history, "slice-1", "create", None, "pending", 1.0)
    for length in range(1, 4):
        (line,) = history.lines()
        assert [link.slice_id for link in line] == [f"slice-{number}" for number in range(1, length + 1)]
    assert [link.slice_id for link in history.lineage("slice-2")] == [f"slice-{number}" for number in range(1, 5)]


def test_a_line_whose_beginning_was_forgotten_begins_with_what_is_kept():
    history = History(limit=2)
    add(history, "slice-1", "create", None, "pending", 1.0)
    add(history, "slice-2", "create", None, "pending", 2.0, "replacement", cause="slice-1")
    add(history, "slice-3", "create", None, "pending", 3.0, "replacement", cause="slice-2")
    assert [[link.slice_id for link in line] for line in history.lines()] == [["slice-2", "slice-3"]]


def test_a_run_stands_still_from_the_loss_until_all_processes_are_alive_again(incident):
    (run,) = incident.runs()
    assert (run.id, run.state, run.submitted_at) == ("run-1", "running", 5.0)
    (pause,) = run.pauses
    assert (pause.after, pause.before, pause.stopped_at, pause.resumed_at) == ("run-1/1", "run-1/2", 20.0, 27.0)
    assert run.stood_still_s == pause.seconds == 7.0
    assert pause.loss.reason == "node_died"
    assert json.loads(json.dumps(run.as_dict()))["pauses"][0]["seconds"] == 7.0


def test_a_pause_is_open_until_the_work_goes_on(incident):
    history = History()
    for change in incident.select(before=25.5):
        history.record(change)
    history.attempts.record(attempt(1, ("slice-1", "slice-2"), 5.0, 21.0, "preempted"))
    (run,) = history.runs()
    assert (run.state, run.detail) == ("waiting", "attempt 1 preempted: ")
    assert [(pause.before, pause.resumed_at, pause.seconds) for pause in run.pauses] == [(None, None, None)]
    add(history, "run-1", None, "cancelled", "cancelled", 30.0, Reason.RUN_FINISHED, detail="cancelled: by hand")
    (run,) = history.runs("run-1")
    assert (run.state, run.detail, run.ended_at, run.pauses) == ("cancelled", "by hand", 30.0, ())
    assert history.runs("run-9") == ()


def test_a_run_that_failed_stood_still_from_the_end_of_its_attempt():
    history = History()
    add(history, "run-1", None, None, None, 1.0, Reason.RUN_SUBMITTED)
    history.attempts.record(attempt(1, ("slice-1",), 2.0, 5.0, "failed"))
    history.attempts.record(attempt(2, ("slice-1",), 6.0, 6.1, "failed"))
    (pause,) = history.runs("run-1")[0].pauses[:1]
    assert (pause.stopped_at, pause.resumed_at, pause.loss) == (5.0, 6.0, None)


def test_time_in_each_state_is_measured(incident):
    spent = incident.durations()
    assert spent.records["slice-2"] == {
        "pending": 1.0,
        "placed": 1.0,
        "ready": 3.0,
        "running": 15.0,
        "preempted": 0.0,
        "draining": 2.0,
    }
    assert spent.records["slice-3"] == {"pending": 3.0, "placed": 2.0, "ready": 2.0}
    assert spent.total("slice")["running"] == 15.0 + 22.0
    assert incident.durations("slice-3", until=37.0).records["slice-3"]["ready"] == 12.0
    assert set(incident.durations("slice-3").records) == {"slice-3", "slice-3/0"}


def test_what_was_forgotten_counts_from_what_is_kept():
    history = History(limit=1)
    add(history, "slice-1", "create", None, "pending", 1.0)
    add(history, "slice-2", "create", None, "pending", 5.0)
    assert history.durations(until=8.0).records == {"slice-1": {"pending": 3.0}, "slice-2": {"pending": 3.0}}


def test_who_has_not_moved_since_what_is_kept_counts_from_there():
    """And not from 1970."""
    history = History(limit=1)
    add(history, "slice-1", "create", None, "pending", 1e9)
    add(history, "slice-2", "create", None, "pending", 1e9 + 5.0)
    assert history.durations("slice-1", until=1e9 + 8.0).records == {"slice-1": {"pending": 3.0}}
    assert history.durations("slice-1").records == {"slice-1": {"pending": 0.0}}
    assert measure({"slice-1": "ready"}, (), 1e9).records == {"slice-1": {"ready": 0.0}}


def test_violations_are_told(incident):
    assert any("slice-1/0 is not legal" in text or "starts from" in text for text in incident.violations())


def test_a_history_goes_on_after_another():
    history = History()
    done = attempt(1, ("slice-1",), 1.0, 2.0, "succeeded")
    history.resume(40, 9.0, [done])
    assert add(history, "slice-9", "create", None, "pending", 10.0).seq == 41
    assert (history.dropped, history.at(9.0), history.attempts.of()) == (40, {}, (done,))
    with pytest.raises(LookupError):
        history.at(8.0)
    with pytest.raises(ValueError, match="cannot resume"):
        history.resume(50, 9.0, [])


class Counting(History):
    """A history that counts how often it is gone through."""

    looks = 0

    def window(self):
        self.looks += 1
        return super().window()

    def story(self, *keys):
        self.looks += 1
        return super().story(*keys)


def many_runs(count):
    """Runs one after the other on slices of their own, each of which loses its slice once."""
    history = Counting()
    for number in range(1, count + 1):
        at, old, new = 100.0 * number, f"slice-{2 * number}", f"slice-{2 * number + 1}"
        add(history, f"run-{number}", None, None, None, at, Reason.RUN_SUBMITTED)
        add(history, old, "create", None, "pending", at)
        add(history, new, "create", None, "pending", at + 3.0, "replacement", cause=old)
        add(history, old, "preempt", "running", "preempted", at + 3.0, "node_died")
        for tried, slices in enumerate([(old,), (new,)], 1):
            record = attempt(tried, slices, at + tried, at + 2.0 * tried, "preempted")
            history.attempts.record(record._replace(run=f"run-{number}"))
    return history


@pytest.mark.parametrize("question", ["runs", "losses"])
def test_many_are_told_with_as_few_looks_as_one(question):
    looks = []
    for count in (1, 20):
        history = many_runs(count)
        assert len(getattr(history, question)()) == count
        looks.append(history.looks)
    assert looks[0] == looks[1]


def test_a_run_under_way_of_which_no_note_is_kept_is_told_first(incident):
    incident.attempts.record(attempt(7, ("slice-3",), 1.0)._replace(run="run-0"))
    incident.attempts.record(attempt(1, ("slice-3",), 1.0, 2.0, "failed")._replace(run="run-00"))
    assert [(run.id, run.state) for run in incident.runs()] == [("run-0", "running"), ("run-1", "running")]
