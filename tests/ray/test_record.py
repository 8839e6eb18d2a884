"""What a fleet on real raylets goes by is written down, and replays to the same decisions where there is no Ray."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sliceform.controller import RunFailed, SliceController, TpuSlice
from sliceform.controller.testing import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

_REPLAY = "import sys; sys.modules['ray'] = None; from sliceform.controller.cli import main; sys.exit(main())"


def work(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_loss_under_a_run_replays_without_ray(cluster: VirtualCluster, tmp_path: Path) -> None:
    cluster.add_slices(["v4-16"] * 3)
    path = tmp_path / "fleet.record"
    with SliceController(TpuSlice("v4-16"), 2, spares=1, record=path) as fleet:
        fleet.wait_ready(2, timeout_s=60.0)
        run = fleet.options(env={"TOKEN": "s3cret"}).submit(work, 2.0)
        while run.status().state != "running":
            time.sleep(0.05)
        place = next(row.place for row in fleet.status().slices if row.attempt is not None)
        cluster.kill_host(next(row for row in cluster.slices if row.name == place).hosts[1])
        assert run.result(timeout_s=90.0).values == [2.0] * 4
        with pytest.raises(RunFailed):
            fleet.options(slices=1).run(int, "one")
        fleet.scale(1, spares=0)
    told = path.read_text()
    assert "s3cret" not in told
    assert '"HostLost"' in told
    done = subprocess.run([sys.executable, "-c", _REPLAY, "replay", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert int(done.stdout.split()[0]) == told.count('{"tick":') > 20
