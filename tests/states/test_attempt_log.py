"""The log of attempts: what is kept, in which order, and what a reader that comes again is given."""

import json
import threading

import pytest

from sliceform.states import AttemptLog, AttemptRecord, HostEnd


def attempt(run="run-1", number=1, outcome=None):
    hosts = (HostEnd("slice-1/0", "node", outcome and "returned"), HostEnd("slice-1/1", None))
    return AttemptRecord(run, number, ("slice-1",), hosts, 10.0, outcome and 12.0, outcome)


def test_an_attempt_is_kept_as_it_was_recorded_last_in_the_order_of_beginnings():
    log = AttemptLog(10)
    log.record(attempt(number=1))
    log.record(attempt(run="run-2"))
    log.record(attempt(number=1, outcome="preempted"))
    log.record(attempt(number=2))
    assert [row.key for row in log.of()] == ["run-1/1", "run-2/1", "run-1/2"]
    assert [row.outcome for row in log.of("run-1")] == ["preempted", None]
    assert log.of("run-3") == ()


def test_since_gives_what_was_recorded_later_as_it_stands():
    log = AttemptLog(10)
    log.record(attempt(number=1))
    log.record(attempt(number=2))
    revision, fresh = log.since(0)
    assert [row.number for row in fresh] == [1, 2]
    assert log.since(revision) == (revision, ())
    log.record(attempt(number=1, outcome="failed"))
    later, fresh = log.since(revision)
    assert later > revision
    assert [(row.number, row.outcome) for row in fresh] == [(1, "failed")]
    assert [row.number for row in log.since(0)[1]] == [1, 2]


def test_the_oldest_are_forgotten_beyond_the_limit():
    log = AttemptLog(2)
    for number in (1, 2, 3):
        log.record(attempt(number=number))
    assert [row.number for row in log.of()] == [2, 3]
    with pytest.raises(ValueError, match="at least one"):
        AttemptLog(0)


def test_a_reader_on_another_thread_sees_one_write_or_the_next():
    log, over = AttemptLog(50), threading.Event()
    seen = []

    def read():
        revision = 0
        while not over.is_set():
            revision, fresh = log.since(revision)
            seen.append((len(log.of()), len(fresh)))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 20_001):
        log.record(attempt(number=number))
    over.set()
    reader.join(10.0)
    assert not reader.is_alive()
    assert seen
    assert max(max(pair) for pair in seen) <= 50


def test_a_record_is_ready_for_json():
    row = json.loads(json.dumps(attempt(outcome="succeeded").as_dict()))
    assert row["hosts"][0] == {"host": "slice-1/0", "node": "node", "outcome": "returned", "detail": ""}
    assert row["slices"] == ["slice-1"]
