"""The strategies that users get: what they draw is what they say, and all of it is drawn."""

import subprocess
import sys

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from sliceform.controller.api.controller import SliceController
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.testing import FaultyBackend, SimBackend
from sliceform.controller.testing.faulty import Faults
from sliceform.controller.testing.inputs import VERBS, Input, Stage
from sliceform.controller.testing.strategies import (
    illegal_walks,
    legal_walks,
    schedules,
    state_after,
)
from sliceform.states import HOST_TABLE, SLICE_TABLE, check_records, replay

TABLES = [SLICE_TABLE, HOST_TABLE]
PLACES = ["a", "b", "c", "d"]
tables = pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
unhurried = settings(deadline=None, derandomize=True, database=None)
seek = settings(unhurried, phases=[Phase.generate], max_examples=20_000)


@tables
def test_every_row_is_walked(table):
    """For each row there is a legal walk that ends with it."""
    for row in table.rows:
        walk = find(
            legal_walks(table),
            lambda walk, row=row: (state_after(table, walk[:-1]), walk[-1]) == (row.source, row.trigger),
            settings=seek,
        )
        assert state_after(table, walk) is row.dest


@tables
@unhurried
@given(st.data())
def test_an_illegal_walk_fails_at_its_end(table, data):
    """All before is legal; the last trigger has no row."""
    wrong = data.draw(illegal_walks(table))
    assert table.row(state_after(table, wrong.before), wrong.trigger) is None
    with pytest.raises(ValueError, match="is not legal from"):
        state_after(table, (*wrong.before, wrong.trigger))


@unhurried
@given(schedules(PLACES, hosts=2))
def test_a_schedule_is_read_as_it_is_written(schedule):
    """Scenario files hold what was drawn."""
    assert tuple(Input.parse(str(each)) for each in schedule) == schedule


@settings(unhurried, max_examples=60)
@given(schedule=schedules(PLACES, hosts=2), seed=st.integers(0, 1_000))
def test_a_fleet_keeps_the_invariants_on_any_schedule(schedule, seed):
    """In every tick; and after all is mended it comes to rest."""
    shape = TpuSlice("v4-16")
    sim = SimBackend(shape, PLACES, seed=seed, work_s=6.0, jitter=0.3)
    faulty = FaultyBackend(sim, seed)
    fleet = SliceController(shape, 2, backend=faulty, clock=sim.clock)

    def check():
        records = [life.record for life in fleet._ledger.fleet.lives.values()]
        assert check_records(records) == ()

    stage = Stage(fleet, sim, faulty, after_tick=check)
    try:
        for each in schedule:
            stage.perform(each)
        stage.mend()
        fleet.scale(2, 0)
        fleet.wait_ready(2, timeout_s=4_000)
    finally:
        fleet.close()
    assert replay(fleet.history) == ()
    assert sim.left_at_close == {}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("explode a 0", "there is no input 'explode': use one of add_slice"),
        ("kill_host a", "write kill_host PLACE WORKER_ID, not kill_host a"),
        ("tick 2 -1", "is no time"),
        ("fail_observation maybe", "write on or off"),
        ("inject lose=2", "lose must be between 0 and 1"),
    ],
)
def test_a_line_that_no_stage_performs_is_refused(line, says):
    """And the message says how it is written."""
    with pytest.raises(ValueError, match=says):
        Input.parse(line)


def test_faults_are_an_input():
    """Those that are not likely are not written."""
    assert str(Input.inject(Faults(lose=0.1, late_s=0.0))) == "inject lose=0.1"


#: They end a fleet, wait, undo what others do, or are about one answer.
ONLY_WRITTEN = {"add_slice", "allow", "avoid", "close", "give", "keep_back", "mend", "quota", "wait_ready"}


def test_every_verb_is_drawn():
    """But for what only people write."""
    for verb in set(VERBS) - ONLY_WRITTEN:
        find(
            schedules(PLACES, hosts=2),
            lambda drawn, verb=verb: any(each.verb == verb for each in drawn),
            settings=seek,
        )


def test_without_hypothesis_the_message_says_what_to_install():
    """Nothing else of the testing tools needs it."""
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from sliceform.controller.testing import SimBackend, inputs\n"
        "from sliceform.controller.testing import strategies\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: the strategies need hypothesis: pip install 'sliceform[testing]'" in done.stderr
