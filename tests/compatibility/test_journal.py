"""A journal that version 0.1.0 wrote: it opens, answers every question, and is continued; see `make_journal.py`."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.cli import main
from sliceform.controller.follow.journal import open_journal
from sliceform.controller.report import timeline_page, timeline_svg
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import Reason

OLD = Path(__file__).with_name("journal-0.1.0.sqlite")
#: The first driver lost a slice five seconds ago: it has been replaced, and run-1 works again.
LATER = 1_700_000_013.0
RUNS = {
    "run-1": ("succeeded", 2),
    "run-2": ("failed", 1),
    "run-3": ("succeeded", 2),
    "run-4": ("cancelled", 1),
    "run-5": ("cancelled", 0),
    "run-6": ("running", 1),
    "run-7": ("waiting", 0),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A simulated fleet would log every change."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy, which may be written to."""
    return Path(shutil.copy(OLD, tmp_path / "fleet.db"))


@pytest.fixture
def ask(capsys):
    def one(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return one


@pytest.fixture
def next_driver(path):
    """The driver after the one that was killed, on a cluster of the same places."""
    clock, shape = FakeClock(epoch=1_700_002_000.0), TpuSlice("v4-16")
    sim = SimBackend(shape, ["rack-a", "rack-b", "rack-c", "rack-d"], clock=clock, work_s=5.0)
    fleet = SliceController(shape, 2, name="old", backend=sim, clock=clock, journal=path)
    yield fleet
    fleet.close()


def test_it_opens_and_answers_every_question_of_a_history(path):
    with open_journal(path) as journal:
        journal.check_file()
        assert journal.violations() == ()
        assert (len(journal), journal.last_seq, journal.dropped) == (251, 251, 0)
        assert journal.writing() == "gone"
        assert [driver.closed_at is None for driver in journal.drivers()] == [False, True]
        assert [wish.what for wish in journal.wishes()] == [((1, 2), 1), ((1,), 0), ((1, 2), 1)]
        states = {"slice-2": "running", "slice-3": "running", "slice-4": "ready"}
        assert journal.at(LATER) == {
            key: state for name, state in states.items() for key in (name, f"{name}/0", f"{name}/1")
        }
        triggers = [change.trigger for change in journal.story("slice-7") if change.key == "slice-7"]
        assert triggers == ["create", "place", "prepare", "drain", "release"]
        assert [[link.slice_id for link in line] for line in journal.lines()] == [
            ["slice-1", "slice-4"],
            ["slice-2", "slice-5"],
            ["slice-3", "slice-7"],
            ["slice-6"],
            ["slice-8"],
            ["slice-9"],
            ["slice-10", "slice-11"],
        ]
        assert [(loss.host, loss.reason, loss.replaced_by) for loss in journal.losses()] == [
            ("slice-1/1", "node_died", "slice-4"),
            ("slice-2/0", "preemption_notice", "slice-5"),
            ("slice-10/0", "node_died", "slice-11"),
        ]
        assert {run.id: (run.state, len(run.attempts)) for run in journal.runs()} == RUNS
        assert journal.runs("run-1")[0].stood_still_s == 2.0
        assert journal.durations("slice-1").records["slice-1"]["running"] == 2.75
        assert len(journal.select(reason="node_died")) == 4


def test_pages_show_it(path):
    with open_journal(path) as journal:
        page, drawing = timeline_page(journal), timeline_svg(journal)
    assert all(name in page and name in drawing for name in ("slice-1", "slice-11", "run-1"))


def test_every_command_answers(ask, path):
    assert "running -> preempted  (node_died) host 1: node 00000002: killed  <- slice-1/1" in ask("history", path)
    assert "slice-1    [*] -> pending  (desired)" in ask("story", path, "slice-1")
    assert {run["id"]: (run["state"], len(run["attempts"])) for run in json.loads(ask("runs", path, "--json"))} == RUNS
    assert "slice-10" in ask("lineage", path, "slice-11")
    assert "slice-1" in ask("durations", path)
    assert "1/2 + 1 spare wanted" in ask("status", path)
    assert "3 ready" in ask("status", path, "--at", "1700000004")
    assert "slice-10 was lost last, at" in ask("why", path)
    assert "run-2 failed after 1 attempt: rank 0 (slice-2/0): ValueError" in ask("why", path, "run-2")
    assert "0 violations" in ask("check", path)
    ask("timeline", path, "--output", path.with_suffix(".html"))
    assert "slice-11" in path.with_suffix(".html").read_text()


def test_the_next_driver_continues_it(next_driver, path):
    next_driver.wait_ready(2)
    assert [row.id for row in next_driver.status().slices] == ["slice-12", "slice-13"]
    run = next_driver.submit(max, 1, 2)
    assert run.id == "run-8"
    assert run.result().values == [2] * 4
    assert str(next_driver.why("run-1")).startswith("run-1 succeeded after 2 attempts")
    assert next_driver.history.story("slice-1")[0].trigger == "create"
    next_driver.close()
    with open_journal(path) as journal:
        journal.check_file()
        assert journal.violations() == ()
        assert journal.at(2e9) == {}
        left = journal.select(reason=Reason.DRIVER_GONE)
        assert {change.slice_id or change.key for change in left} >= {"slice-8", "slice-9", "slice-11"}
        ended = RUNS | {"run-6": ("cancelled", 1), "run-7": ("cancelled", 0), "run-8": ("succeeded", 1)}
        assert {run.id: (run.state, len(run.attempts)) for run in journal.runs()} == ended
