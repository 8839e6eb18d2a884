"""A fleet with a journal: all of it is in the file, and the next driver goes on from there."""

import pytest

from sliceform.controller.follow.journal import open_journal
from sliceform.states import Reason


def test_a_story_is_the_same_in_memory_and_in_the_file(journal_fleet, path):
    world = journal_fleet()
    world.fleet.wait_ready(2)
    run = world.fleet.submit(max, 1, 2)
    world.go(2.0)
    world.lose("slice-2")
    run.result()
    world.written()
    with open_journal(path) as journal:
        assert journal.writing() == "running"
        assert list(journal) == list(world.history)
        assert journal.attempts.of() == world.history.attempts.of()
    world.fleet.close()
    with open_journal(path) as journal:
        assert journal.writing() == "closed"
        assert journal.at(2e9) == {}
        (driver,) = journal.drivers()
        assert driver.closed_at is not None
        assert driver.shape == "TpuSlice(v4-16)"
        assert [wish.sizes for wish in journal.wishes()] == [(2,)]


def test_the_wishes_are_told(journal_fleet, path):
    world = journal_fleet(1)
    world.fleet.wait_ready()
    world.go(5.0)
    asked_at = world.clock.epoch()
    world.fleet.scale([1, 2], spares=1)
    world.go(5.0)
    world.fleet.close()
    with open_journal(path) as journal:
        first, second = journal.wishes()
        assert (first.what, second.what) == (((1,), 0), ((1, 2), 1))
        assert first.at < second.at == asked_at


def test_the_next_driver_goes_on_with_the_numbers(journal_fleet, path):
    first = journal_fleet()
    first.fleet.wait_ready(2)
    first.fleet.run(max, 1, 2)
    first.fleet.close()
    last = first.history.last_seq
    second = journal_fleet(epoch=1_700_001_000.0)
    second.fleet.wait_ready(2)
    assert [row.id for row in second.fleet.status().slices] == ["slice-3", "slice-4"]
    assert second.fleet.submit(max, 1, 2).id == "run-2"
    assert next(iter(second.history)).seq == last + 1
    assert list(second.history.story("slice-1")) == list(first.history.story("slice-1"))
    assert second.history.at(1_700_000_002.0) == first.history.at(1_700_000_002.0)
    assert [row.key for row in second.history.attempts.of("run-1")] == ["run-1/1"]


def test_what_a_killed_driver_left_is_closed_by_legal_transitions(journal_fleet, path):
    first = journal_fleet()
    first.fleet.wait_ready(2)
    first.fleet.submit(max, 1, 2)
    first.go(2.0)
    first.written()
    first.abandon()
    with open_journal(path) as journal:
        assert journal.writing() == "gone"
        assert set(journal.at(2e9).values()) == {"running"}
    second = journal_fleet(epoch=1_700_001_000.0)
    second.go(1.0)
    second.written()
    with open_journal(path) as journal:
        assert journal.violations() == ()
        story = journal.story("slice-1")
        assert [change.trigger for change in story if change.key == "slice-1"][-2:] == ["drain", "release"]
        assert {change.reason for change in story[-6:]} == {Reason.DRIVER_GONE}
        assert "recorded nothing after 2023-11-14 22:13" in story[-6].detail
        (run,) = journal.runs()
        assert (run.state, run.ended_at) == ("cancelled", 1_700_001_000.25)
        assert "recorded nothing after" in run.detail
        assert [(row.outcome, row.ended_at) for row in run.attempts] == [("cancelled", 1_700_001_000.25)]
        assert not {"slice-1", "slice-2"} & set(journal.at(2e9))
        assert [driver.closed_at for driver in journal.drivers()] == [None, None]
    assert list(second.history.story("slice-1")) == list(story)


def test_memory_that_forgets_falls_back_on_the_file(journal_fleet, path):
    world = journal_fleet(history_limit=40)
    world.fleet.wait_ready(2)
    for _ in range(3):
        world.written()
        world.lose(world.fleet.status().slices[0].id)
    world.written()
    assert world.history.dropped > 0
    with open_journal(path) as journal:
        assert list(world.history.story("slice-1")) == list(journal.story("slice-1"))
        assert world.history.story("slice-1")[0].trigger == "create"
        assert world.history.at(1_700_000_002.0) == journal.at(1_700_000_002.0)


def test_a_run_that_was_over_before_is_told_as_it_ended(journal_fleet):
    first = journal_fleet()
    first.fleet.wait_ready(2)
    first.fleet.run(max, 1, 2)
    first.fleet.close()
    second = journal_fleet(epoch=1_700_001_000.0)
    second.fleet.wait_ready(2)
    assert str(second.fleet.why("run-1")).startswith("run-1 succeeded after 1 attempt: every host returned")
    assert len(second.history.select(key="slice-1")) == len(first.history.select(key="slice-1")) > 0


def test_what_is_not_yet_in_the_file_follows_what_is(journal_fleet, path):
    first = journal_fleet()
    first.fleet.wait_ready(2)
    first.fleet.close()
    second = journal_fleet(epoch=1_700_001_000.0)
    second.fleet.wait_ready(2)
    second.written()
    (follower,) = [one for one in second.fleet._followers._followers if one._name == "journal"]
    assert follower.stop(20.0)
    run = second.fleet.submit(max, 1, 2)
    second.go(2.0)
    second.lose("slice-4")
    run.result()
    with open_journal(path) as journal:
        assert journal.last_seq < second.history.last_seq
    history = second.history
    together = [*first.history, *history]
    assert history.as_dicts() == [change.as_dict() for change in together]
    assert history.violations() == ()
    assert list(history.select(key="slice-4")) == [one for one in together if "slice-4" in {one.key, one.slice_id}]
    assert list(history.select(limit=3)) == together[-3:]
    assert list(history.select(limit=len(together) - 1)) == together[1:]
    assert [link.slice_id for link in history.lineage("slice-5")] == ["slice-4", "slice-5"]
    assert [loss.replaced_by for loss in history.losses()] == ["slice-5"]
    (told,) = history.runs()
    assert (told.state, len(told.attempts), told.stood_still_s > 0) == ("succeeded", 2, True)


def test_the_fleet_goes_on_without_reading_its_journal(journal_fleet, monkeypatch):
    first = journal_fleet()
    first.fleet.wait_ready(2)
    first.fleet.close()

    def refuse(path):
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("sliceform.controller.follow.journal.history.open_journal", refuse)
    world = journal_fleet(history_limit=40, epoch=1_700_001_000.0)
    world.fleet.wait_ready(2)
    run = world.fleet.submit(max, 1, 2)
    world.lose("slice-4")
    run.result()
    assert world.history.dropped > 40
    with pytest.raises(AssertionError, match="was read"):
        world.history.runs()


def test_a_file_that_cannot_be_read_leaves_what_memory_has(journal_fleet, path):
    world = journal_fleet(history_limit=40)
    world.fleet.wait_ready(2)
    for _ in range(3):
        world.written()
        world.lose(world.fleet.status().slices[0].id)
    world.written()
    path.rename(path.with_suffix(".away"))
    assert world.history.story("slice-2") == tuple(
        change for change in world.history if "slice-2" in {change.key, change.slice_id}
    )


def test_a_journal_that_is_deleted_is_counted_as_an_error_and_the_fleet_goes_on(journal_fleet, path):
    world = journal_fleet()
    world.fleet.wait_ready(2)
    world.written()
    (follower,) = [one for one in world.fleet._followers._followers if one._name == "journal"]
    path.unlink()
    run = world.fleet.submit(max, 1, 2)
    world.lose("slice-2")
    run.result()
    world.wait_until(lambda: follower.errors)
    assert not path.exists()


def test_a_fleet_without_a_journal_writes_no_file(journal_fleet, tmp_path):
    world = journal_fleet(path=None)
    world.fleet.wait_ready(2)
    world.fleet.close()
    assert list(tmp_path.iterdir()) == []
