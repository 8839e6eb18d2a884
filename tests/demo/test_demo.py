"""The demo as people start it, on real Ray: it shows what it should, and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sliceform.controller.follow.journal import open_journal
from sliceform.controller.report.explain import explain_fleet
from sliceform.controller.report.known import Known
from sliceform.controller.report.look import Look

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

_MAIN = "import sys; from sliceform.controller.cli import main; sys.exit(main())"
_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "embed.py"
#: On virtual hosts sliceform looks not installed: all they have of it is what was sent.
_HIDE_ON_HOSTS = """\
import os
import sys


class _Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "sliceform":
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the tests)", name=name)


if "SLICEFORM_VIRTUAL_HOST" in os.environ:
    sys.meta_path.insert(0, _Hidden)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short and unusual name, in which all that is started keeps its files."""
    folder = Path(tempfile.mkdtemp(prefix="sfdm-", dir="/tmp"))
    (folder / "hide").mkdir()
    (folder / "hide" / "sitecustomize.py").write_text(_HIDE_ON_HOSTS)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def environment(place: Path) -> dict[str, str]:
    paths = [str(place / "hide"), *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(place)}


def left_behind(place: Path) -> list[str]:
    """Processes that mention the folder, and what is in it of ours."""
    needle = os.fsencode(place)
    left = [path.name for path in place.iterdir() if path.name.startswith(("sf-", "sliceform-demo-"))]
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            try:
                command = (process / "cmdline").read_bytes()
                if needle in command or needle in (process / "environ").read_bytes():
                    left.append(f"{process.name} {command[:120]!r}")
            except OSError:
                continue
    return left


def wait_until_nothing_is_left(place: Path) -> None:
    end = time.monotonic() + 45
    while left := left_behind(place):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_the_demo_shows_all_of_it(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MAIN, "demo", "--steps", "300", "--journal", place / "kept.db"],
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert done.stderr == ""
    assert "attempt 1  4 processes in one JAX world, from the beginning" in said
    lost = re.search(r"(slice-\d)  +running -> preempted", said)
    assert lost
    assert re.search(rf"slice-3  +\(new\) -> pending +replacement: replaces {lost[1]}", said)
    resumed = re.search(r"attempt 2  4 processes in one JAX world, from the checkpoint of step (\d+)", said)
    assert resumed
    assert 0 < int(resumed[1]) < 300
    assert re.search(r"attempt 2  step 300/300  loss \d\.\d+  accuracy 0\.9", said)
    assert f"The story of the lost slice, {lost[1]}" in said
    assert "The story of its replacement, slice-3" in said
    assert "run-1: succeeded" in said
    assert re.search(rf"\d\.\d+ s  loss of {lost[1]} noticed", said)
    assert "All of it happened" in said
    assert "raylet" not in said
    with open_journal(place / "kept.db") as journal:
        assert (journal.writing(), journal.violations(), journal.at(time.time())) == ("closed", (), {})
        why = str(explain_fleet(Known(journal), Look(time.time())))
    assert re.search(rf"host {lost[1]}/\d on node \w+ of v4-16-\w was lost at .*, learnt by \w+: ", why)
    assert f"replaced {lost[1]} and was ready" in why
    assert "its work stood still for" in why
    wait_until_nothing_is_left(place)


def test_ctrl_c_leaves_nothing_behind(place: Path) -> None:
    words = ["demo", "--slices", "1", "--hosts", "1", "--no-fault", "--steps", "1000000"]
    with subprocess.Popen(
        [sys.executable, "-c", _MAIN, *words],
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        try:
            for line in started.stdout:
                if re.search(r"attempt 1  step +\d+/", line):
                    break
            assert left_behind(place)
            os.killpg(started.pid, signal.SIGINT)
            _, said = started.communicate(timeout=60)
        finally:
            started.kill()
    assert started.returncode == 130, said
    assert said == "interrupted; everything that was started is gone\n"
    wait_until_nothing_is_left(place)


def test_the_example_runs(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(_EXAMPLE)],
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    greetings = re.findall(r"hello from rank (\d) of 4: host (\d) of slice-(\d)", done.stdout)
    assert greetings == [("0", "0", "1"), ("1", "1", "1"), ("2", "0", "2"), ("3", "1", "2")]
    assert "[*] -> pending" in done.stdout
    wait_until_nothing_is_left(place)
