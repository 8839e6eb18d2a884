"""Files that are no journal, or not one for us: refused with what to do, and left as they are."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from sliceform.controller.errors import (
    FleetNameTakenError,
    JournalDamagedError,
    JournalError,
    JournalForeignError,
    JournalInUseError,
    JournalMissingError,
    JournalNewerError,
)
from sliceform.controller.follow.journal import open_journal


def ways(path, pen):
    """Both who reads and who writes looks at the file first."""
    yield lambda: open_journal(path)
    yield lambda: pen(path=path)


def test_a_text_is_no_journal(path, pen):
    path.write_text("not a database, " * 100)
    before = path.read_bytes()
    for way in ways(path, pen):
        with pytest.raises(JournalForeignError, match="is not a journal"):
            way()
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(path, pen):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    for way in ways(path, pen):
        with pytest.raises(JournalForeignError, match="made by another program"):
            way()
    assert path.read_bytes() == before


def test_a_newer_journal_is_left_alone(path, pen):
    pen(path=path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.commit()
    newer.close()
    before = path.read_bytes()
    for way in ways(path, pen):
        with pytest.raises(JournalNewerError, match="has form 99, this sliceform knows forms up to 1"):
            way()
    assert path.read_bytes() == before


def test_a_damaged_journal_is_left_alone(path, pen):
    one = pen(path=path)
    for number in range(1, 500):
        one.life(number, 1.0)
    one.flush()
    one.close()
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes(16_384) + whole[middle + 16_384 :]):
        path.write_bytes(damaged)
        with pytest.raises(JournalDamagedError, match="is damaged"):
            pen(path=path)
        with pytest.raises(JournalDamagedError, match="is damaged"), open_journal(path) as journal:
            journal.check_file()
        assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("text", "damage"),
    [
        (b"CREATE TABLE changes", b"CREATE TABLE \xff\xfe\xfd\xfc\xfb\xfa\xf9"),
        (b'["slice-1"]', b'["slice-1"}'),
        (b"successfully", b"successfull\xff"),
    ],
)
def test_texts_that_make_no_sense_are_damage(path, pen, text, damage):
    one = pen(path=path)
    one.add("slice-1", "pending", 1.0, trigger="create", detail="successfully")
    one.run(1, 2.0)
    one.flush()
    one.close()
    whole = path.read_bytes()
    assert text in whole
    path.write_bytes(whole.replace(text, damage))
    with pytest.raises(JournalDamagedError, match=r"fleet\.db is damaged"), open_journal(path) as journal:
        assert (journal.runs(), list(journal)) == "unread"


def test_an_empty_file_is_told_as_empty(path, pen):
    path.touch()
    with pytest.raises(JournalForeignError, match=r"fleet\.db is empty"):
        open_journal(path)
    pen(path=path).close()
    open_journal(path).close()


def test_a_name_that_is_too_long_is_refused(tmp_path, pen):
    for way in ways(tmp_path / ("x" * 300), pen):
        with pytest.raises(JournalError, match=r"cannot be looked at \(File name too long\): give a path"):
            way()


def test_a_folder_that_may_not_be_entered_is_named(path, pen, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    for way in ways(path, pen):
        with pytest.raises(JournalError, match=r"fleet\.db cannot be looked at \(Permission denied\): give a path"):
            way()


def test_a_killed_journal_where_nothing_can_be_written_is_to_be_copied(path, pen):
    one = pen(path=path)
    one.life(1, 0.0)
    one.flush()
    folder = path.parent / "read-only"
    folder.mkdir()
    for name in (path.name, path.name + "-wal"):
        shutil.copy(path.with_name(name), folder)
    # In the way of the file that SQLite makes to read what was not closed.
    shm = folder / (path.name + "-shm")
    shm.symlink_to(shm)
    with pytest.raises(JournalError, match=r"was not closed, .*: copy it, with its -wal file, to a"):
        open_journal(folder / path.name)


def test_a_file_that_is_not_there_is_named(tmp_path, pen):
    with pytest.raises(JournalMissingError, match=r"absent\.db does not exist"):
        open_journal(tmp_path / "absent.db")
    with pytest.raises(JournalMissingError, match="is a folder"):
        open_journal(tmp_path)
    with pytest.raises(JournalMissingError, match="nowhere does not exist"):
        pen(path=tmp_path / "nowhere" / "fleet.db")


def test_two_fleets_cannot_write_one_journal(path, pen):
    first = pen(path=path)
    first.life(1, 0.0)
    first.flush()
    with pytest.raises(JournalInUseError, match=r"is written by another fleet \(pen/0, process \d+ on "):
        pen(path=path)
    first.life(2, 10.0)
    first.flush()
    first.close()
    second = pen(path=path)
    assert second.history.last_seq == 8


def test_one_journal_by_two_names_is_one_journal(path, pen):
    first = pen(path=path)
    link = path.with_name("link.db")
    link.symlink_to(path.name)
    with pytest.raises(JournalInUseError, match="is written by another fleet"):
        pen(path=link)
    with open_journal(link) as journal:
        assert journal.writing() == "running"
        first.close()
        assert journal.writing() == "closed"


def test_who_deletes_the_lock_lets_two_write_but_not_both(path, pen):
    first = pen(path=path)
    first.life(1, 0.0)
    first.flush()
    path.with_name(path.name + ".lock").unlink()
    second = pen(path=path)
    first.life(2, 10.0)
    batch = first.batch()
    with pytest.raises(JournalInUseError, match=r"written by another fleet, too \(pen, process \d+ on "):
        first.writer.write(batch)
    first.close()
    with pytest.raises(JournalInUseError):
        pen(path=path)
    second.life(3, 20.0)
    second.flush()
    with open_journal(path) as journal:
        assert journal.names() == ("slice-1", "slice-3")
        assert journal.writing() == "running"


def test_a_journal_is_found_again_from_another_folder(journal_fleet, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    first = journal_fleet(path="fleet.db")
    first.fleet.wait_ready(2)
    monkeypatch.chdir(tmp_path / "b")
    second = journal_fleet(path="fleet.db")
    second.fleet.wait_ready(2)
    first.fleet.close()
    with open_journal(tmp_path / "a" / "fleet.db") as journal:
        assert journal.writing() == "closed"
    with open_journal("fleet.db") as journal:
        monkeypatch.chdir(tmp_path)
        assert journal.writing() == "running"


def test_a_reader_that_is_closed_says_so(path, pen):
    pen(path=path).close()
    journal = open_journal(path)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="was closed"):
        len(journal)


def test_a_fleet_that_cannot_start_lets_go_of_its_journal(journal_fleet, path):
    world = journal_fleet()
    world.fleet._identity = world.fleet._identity.__class__(
        "taken", "taken", "1", *[getattr(world.fleet._identity, name) for name in ("shape", "settings")]
    )
    world.sim.take_name("taken")
    with pytest.raises(FleetNameTakenError):
        world.fleet.step()
    other = journal_fleet()
    other.go(1.0)


def test_a_fleet_refuses_a_foreign_file_before_it_asks_the_cluster(journal_fleet, path):
    path.write_text("x" * 5000)
    world = journal_fleet()
    with pytest.raises(JournalForeignError):
        world.fleet.start()
    assert world.sim._fleet is None
