"""What the writer keeps: everything in order, within its limit, through failures and gaps."""

import sqlite3

import pytest

from sliceform.controller.errors import JournalError, JournalInUseError, JournalMissingError
from sliceform.controller.follow.journal import open_journal
from sliceform.states import AttemptRecord, ForgottenError, HostEnd, replay


def test_what_is_recorded_is_in_the_file(pen, path):
    one = pen()
    one.life(1, 10.0)
    one.run(1, 12.0)
    one.flush()
    with open_journal(path) as journal:
        assert list(journal) == list(one.history)
        assert journal.attempts.of() == one.history.attempts.of()
        assert (journal.last_seq, len(journal), journal.dropped) == (6, 6, 0)
        assert journal.names() == ("slice-1", "run-1")
        assert journal.span() == (10.0, 13.0)


def test_readers_see_a_journal_grow(pen, path):
    one = pen()
    with open_journal(path) as first, open_journal(path) as second:
        assert first.last_seq == 0
        one.life(1, 0.0)
        one.flush()
        assert first.last_seq == second.last_seq == 4
        one.life(2, 10.0)
        one.flush()
        assert list(first.since(4)) == list(second.since(4)) == list(one.history.since(4))


def test_a_batch_that_fails_leaves_nothing_and_is_written_whole_later(pen, path):
    one = pen()
    one.life(1, 0.0)
    one.flush()
    connection = one.writer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # as when the disk is full
    for number in range(2, 400):
        one.life(number, 10.0 * number)
    batch = one.batch()
    with pytest.raises(JournalError, match="full"):
        one.writer.write(batch)
    with open_journal(path) as journal:
        assert journal.last_seq == 4
    connection.execute("PRAGMA max_page_count = 1000000")
    one.writer.write(batch)
    with open_journal(path) as journal:
        assert list(journal) == list(one.history)
        assert journal.at(25.0) == one.history.at(25.0)


@pytest.mark.parametrize("memory", [10_000, 8000])
def test_a_large_batch_is_written_in_parts_and_goes_on_where_it_failed(pen, path, memory):
    one = pen(memory=memory)
    one.life(1, 0.0)
    one.flush()
    connection = one.writer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    # As when the disk is full: enough for the first part, not for all.
    connection.execute(f"PRAGMA max_page_count = {pages + 120}")
    for number in range(2, 2400):
        one.life(number, 10.0 * number)
    batch = one.batch()
    assert (batch.missed > 0) == (memory == 8000)
    with pytest.raises(JournalError, match="full"):
        one.writer.write(batch)
    with open_journal(path) as journal:
        written = journal.last_seq - batch.changes[0].seq + 1
        assert 0 < written < len(batch.changes)
        assert written % 2000 == 0
    connection.execute("PRAGMA max_page_count = 1000000")
    one.writer.write(batch)
    with open_journal(path) as journal:
        assert list(journal)[-len(batch.changes) :] == list(batch.changes)
        assert (journal.dropped, len(journal)) == (batch.missed, one.history.last_seq - batch.missed)
        assert journal.violations() == ()


def test_a_batch_that_comes_twice_is_kept_once(pen, path):
    one = pen()
    one.life(1, 0.0)
    batch = one.batch()
    one.writer.write(batch)
    one.writer.write(batch)
    with open_journal(path) as journal:
        assert list(journal) == list(one.history)


def test_a_file_that_was_moved_away_is_missed_until_it_is_back(pen, path):
    one = pen()
    one.life(1, 0.0)
    one.flush()
    one.life(2, 10.0)
    batch = one.batch()
    away = path.with_name("away.db")
    path.rename(away)
    with pytest.raises(JournalMissingError, match=r"fleet\.db was deleted or moved away while it was written"):
        one.writer.write(batch)
    path.write_text("somebody else's")
    with pytest.raises(JournalInUseError, match=r"fleet\.db was replaced by another file"):
        one.writer.write(batch)
    away.replace(path)
    one.writer.write(batch)
    with open_journal(path) as journal:
        assert list(journal) == list(one.history)


def test_what_took_the_place_of_a_journal_is_left_alone(pen, path):
    one = pen()
    one.life(1, 0.0)
    one.flush()
    path.unlink()
    names = [path, path.with_name(path.name + "-wal"), path.with_name(path.name + ".lock")]
    for name in names:
        name.unlink(missing_ok=True)
        name.write_text("somebody else's")
    one.close()
    assert [name.read_text() for name in names] == ["somebody else's"] * 3


def test_one_large_batch_has_as_many_pictures_as_small_ones(pen, path):
    one = pen()
    for number in range(1, 2001):
        one.life(number, float(number), gone=number > 100)
    one.flush()
    with open_journal(path) as journal:
        with journal.reading() as connection:
            seqs = [row[0] for row in connection.execute("SELECT seq FROM pictures ORDER BY seq")]
        assert seqs == list(range(1000, len(journal) + 1, 1000))
        for time in range(0, 2100, 50):
            assert journal.at(float(time)) == one.history.at(float(time))


def test_somebody_elses_lock_is_waited_for_and_then_told(pen, path, monkeypatch):
    one = pen()
    one.writer._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    one.life(1, 0.0)
    batch = one.batch()
    with pytest.raises(JournalError, match="locked by another program"):
        one.writer.write(batch)
    other.execute("ROLLBACK")
    other.close()
    one.writer.write(batch)
    with open_journal(path) as journal:
        assert journal.last_seq == 4


def test_the_oldest_stories_of_what_is_gone_are_dropped_whole(pen, path):
    one = pen(limit=40)
    one.life(1, 0.0, gone=False)
    for number in range(2, 40):
        one.life(number, 10.0 * number)
        one.run(number, 10.0 * number + 4)
        one.flush()
    with open_journal(path) as journal:
        kept = journal.names()
        assert {"slice-1", "slice-39", "run-39", "slice-38", "run-38"} <= set(kept)
        assert "slice-2" not in kept
        assert 20 < len(journal) <= 40
        assert list(journal.story("slice-1")) == list(one.history.story("slice-1"))
        for name in kept:
            assert list(journal.story(name)) == list(one.history.story(name))
        assert {row.run for row in journal.attempts.of()} <= set(kept)
        assert journal.dropped + len(journal) == one.history.last_seq
        assert journal.violations() == replay(journal) == ()


def test_a_time_before_what_was_dropped_is_refused_and_later_ones_are_right(pen, path):
    one = pen(limit=3000)
    one.life(1, 0.0, gone=False)
    for number in range(2, 1500):
        one.life(number, 10.0 * number)
    one.life(1500, 15_001.0, gone=False)
    for number in range(1501, 3000):
        one.life(number, 10.0 * number)
        if number % 200 == 0:
            one.flush()
    one.flush()
    with open_journal(path) as journal:
        base_at = journal._fact("base_at")
        assert 0 < len(journal) <= 3000
        with pytest.raises(ForgottenError, match="were dropped"):
            journal.at(base_at - 1)
        for time in (base_at, base_at + 1.5, base_at + 1000, 29_000.0, 29_991.0, 1e9):
            assert journal.at(time) == one.history.at(time)


def test_slices_of_a_run_are_kept_until_it_is_over(pen, path):
    one = pen(limit=20)
    one.add("run-1", None, 0.0, trigger=None, reason="run_submitted")
    one.life(1, 0.0)
    one.history.attempts.record(AttemptRecord("run-1", 1, ("slice-1",), (HostEnd("slice-1/0", "node"),), 1.0))
    one.flush()
    one.history.attempts.record(
        AttemptRecord("run-1", 1, ("slice-1",), (HostEnd("slice-1/0", "node", "lost"),), 1.0, 4.0, "preempted")
    )
    for number in range(2, 40):
        one.life(number, 10.0 * number)
        one.flush()
    with open_journal(path) as journal:
        assert "slice-2" not in journal.names()
        assert journal.runs() == one.history.runs()
        assert journal.runs()[0].pauses[0].loss.key == "slice-1"
        assert journal.violations() == ()
        assert journal.at(1e9) == {}
    one.add("run-1", "cancelled", 500.0, trigger=None, reason="run_finished")
    for number in range(40, 50):
        one.life(number, 10.0 * number)
        one.flush()
    with open_journal(path) as journal:
        assert not {"slice-1", "run-1"} & set(journal.names())
        assert journal.attempts.of() == ()
        assert journal.at(495.0) == one.history.at(495.0)


def test_stories_of_what_lives_are_never_dropped(pen, path):
    one = pen(limit=5)
    for number in range(1, 20):
        one.life(number, 1.0, gone=False)
    one.flush()
    with open_journal(path) as journal:
        assert len(journal) == 19
        assert journal.dropped == 0


def test_what_memory_forgot_before_it_was_written_is_a_gap_that_is_told(pen, path):
    one = pen(memory=8)
    one.life(1, 0.0, gone=False)
    one.life(2, 1.0, gone=False)
    one.flush()
    one.add("slice-2", "draining", 5.0, trigger="drain", source="pending")
    one.add("slice-2", None, 6.0, trigger="release", source="draining")
    for number in range(3, 20):
        one.life(number, 10.0 * number)
    one.flush()
    with open_journal(path) as journal:
        assert journal.dropped > 0
        assert journal.violations() == ()
        with pytest.raises(ForgottenError):
            journal.at(2.0)
        assert journal.at(1e9) == one.history.at(1e9) == {"slice-1": "pending"}
        assert [change.seq for change in journal.story("slice-1")] == [1]
    one.close()
    again = pen()
    again.flush()
    with open_journal(path) as journal:
        assert journal.at(1e9) == {}
        assert journal.violations() == ()


def test_a_closed_journal_is_one_plain_file(pen, path):
    one = pen()
    one.life(1, 0.0)
    one.flush()
    one.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with open_journal(path) as journal:
        assert len(journal) == 4
        assert journal.writing() == "closed"


def test_numbers_are_not_used_again_though_their_stories_were_dropped(pen, path):
    one = pen(limit=8)
    for number in range(1, 30):
        one.life(number, 10.0 * number)
        one.flush()
    one.close()
    resumed = pen(limit=8).writer._tally
    assert resumed.next_slice == 30
