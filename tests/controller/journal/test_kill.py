"""kill -9 at any moment: the journal opens, replays, and misses nothing that is older than the bound."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sliceform.controller.journal import open_journal

DRIVER = Path(__file__).with_name("driver.py")
KILLS = 20
#: What was recorded so long before the kill is in the file, seconds.
BOUND_S = 0.1
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


def told(path):
    """What the driver says to have recorded: pairs of number and time, a half-written last line left out."""
    lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return [(int(seq), float(at)) for seq, at in (line.split() for line in lines)]


def wait_for(path, changes):
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        rows = told(path)
        if rows and rows[-1][0] >= changes:
            return
        time.sleep(0.005)
    raise AssertionError(f"the driver recorded only {told(path)[-1:]}")


def kill_one(drivers, path, changes, delay_s):
    """Kill a driver when it has recorded so much and some more; return what it had before the bound, and at last."""
    drivers.stdin.write(f"{path}\n")
    drivers.stdin.flush()
    child = int(drivers.stdout.readline())
    record = path.with_suffix(".told")
    wait_for(record, changes)
    time.sleep(delay_s)
    killed_at = time.monotonic()
    os.kill(child, signal.SIGKILL)
    assert drivers.stdout.readline() == "gone\n"
    rows = told(record)
    return max((seq for seq, at in rows if at <= killed_at - BOUND_S), default=0), rows[-1][0]


def test_a_killed_driver_loses_nothing_older_than_the_bound(drivers, tmp_path):
    rng = random.Random(7)
    owed_in_all = 0
    for number in range(KILLS):
        # Half of them go on with the journal of the one that was killed before them.
        path = tmp_path / f"{number // 2}.db"
        path.with_suffix(".told").unlink(missing_ok=True)
        before = 0
        if path.exists():
            with open_journal(path) as journal:
                before = journal.last_seq
        owed, recorded = kill_one(drivers, path, before + rng.randrange(20, 1500), rng.uniform(0.0, 0.15))
        owed_in_all += max(0, owed - before)
        with open_journal(path) as journal:
            assert journal.writing() == "gone"
            assert owed <= journal.last_seq <= recorded
            assert len(journal) == journal.last_seq
            assert journal.violations() == ()
            assert journal.at(1e12) == journal.at(journal.span()[1])
    assert owed_in_all > 1000
