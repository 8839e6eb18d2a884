"""A record that a fleet on real raylets wrote: the core decides the same again, without Ray; see `record_ray.py`."""

import json
import subprocess
import sys
from pathlib import Path

RECORD = Path(__file__).with_name("ray.record")
#: As `sliceform replay` is started, on a machine without Ray.
_MAIN = "import sys; sys.modules['ray'] = None; from sliceform.controller.cli import main; sys.exit(main())"


def replay(path: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", _MAIN, "replay", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_same_is_decided_again_without_ray() -> None:
    told = RECORD.read_text(encoding="utf-8")
    for what in ('"HostLost"', '"ProcessEnded"', '"NodesSeen"', '"Cancel"', '"Scale"', '"Avoid"', "preempted"):
        assert what in told
    assert "s3cret" not in told
    code, said = replay(RECORD)
    assert (code, int(said.split()[0])) == (0, told.count('{"tick":')), said


def test_the_first_tick_that_decides_otherwise_is_told(tmp_path: Path) -> None:
    """A record of a core that had not drained the slice that was lost."""
    lines = RECORD.read_text(encoding="utf-8").splitlines()
    at, tick = next(
        (at, tick)
        for at, line in enumerate(lines)
        if (tick := json.loads(line)) and any(" drain: " in step for step in tick.get("decided", ()))
    )
    kept = [step for step in tick["decided"] if " drain: " not in step]
    lines[at] = json.dumps(tick | {"decided": kept})
    path = tmp_path / "other.record"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, said = replay(path)
    assert code == 1
    assert f"tick {tick['tick']}, at " in said
    assert "  + slice-" in said
