"""kill -9 at any moment: the journal opens, replays, and misses nothing but what its last writes were to bring."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from sliceform.controller.follow.journal import open_journal

DRIVER = Path(__file__).with_name("driver.py")
KILLS = 20
#: What was recorded before so many writes began is in the file: the first may have been put together before it, the
#: second has it, and the third begins when the second is over.
WRITES = 3
#: So many pauses of a thread that does nothing else there are at most for every write, in the mean.
PAUSES = 5
#: How long to wait for a driver to come so far, seconds.
WAIT_S = 20.0


@pytest.fixture
def drivers():
    """A process that forks drivers: Python and the package are loaded once."""
    with subprocess.Popen(
        [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


class Told(NamedTuple):
    """What a driver said: the last change that it had recorded, and how many writes and pauses there had been."""

    seq: int
    writes: int
    pauses: int


def told(path):
    """Return all that the driver said, a half-written last line left out."""
    lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return [Told(*map(int, line.split())) for line in lines]


def wait_for(path, changes):
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        rows = told(path)
        if rows and rows[-1].seq >= changes:
            return
        time.sleep(0.005)
    raise AssertionError(f"the driver recorded only {told(path)[-1:]}")


def kill_one(drivers, path, changes, delay_s):
    """Kill a driver when it has recorded so much and some more; return what it owed, and what it said at last."""
    drivers.stdin.write(f"{path}\n")
    drivers.stdin.flush()
    child = int(drivers.stdout.readline())
    record = path.with_suffix(".told")
    wait_for(record, changes)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    assert drivers.stdout.readline() == "gone\n"
    rows = told(record)
    return max((row.seq for row in rows if row.writes <= rows[-1].writes - WRITES), default=0), rows[-1]


def test_a_killed_driver_loses_nothing_but_its_last_writes(drivers, tmp_path):
    rng = random.Random(7)
    owed_in_all = writes = pauses = 0
    for number in range(KILLS):
        # Half of them go on with the journal of the one that was killed before them.
        path = tmp_path / f"{number // 2}.db"
        path.with_suffix(".told").unlink(missing_ok=True)
        before = 0
        if path.exists():
            with open_journal(path) as journal:
                before = journal.last_seq
        owed, last = kill_one(drivers, path, before + rng.randrange(20, 1500), rng.uniform(0.0, 0.15))
        owed_in_all += max(0, owed - before)
        writes += last.writes
        pauses += last.pauses
        with open_journal(path) as journal:
            assert journal.writing() == "gone"
            # It may have been killed after a change, and before it said so.
            assert owed <= journal.last_seq
            assert len(journal) == journal.last_seq
            assert journal.violations() == ()
            assert journal.at(1e12) == journal.at(journal.span()[1])
    assert owed_in_all > 1000
    assert PAUSES * writes > pauses
