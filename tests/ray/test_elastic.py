"""Work that survives on real raylets: what a loop loses to a notice, to a kill, and to a change of its size."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.testing.virtual.cluster import VirtualCluster

from ._waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

#: A slice of one host: what is shown here does not depend on the number of hosts.
SHAPE = TpuSlice("v4-8")
READY_S = 60.0
#: A step takes `STEP_S`, and what is done is saved after every so many.
SAVE_EVERY = 10
STEP_S = 0.02
#: As in Ray's autoscaler.proto.
_PREEMPTION = 2


@pytest.fixture(scope="module")
def cluster(start_cluster: Any, hide_sliceform: dict[str, str]) -> Iterator[VirtualCluster]:
    """A cluster on whose hosts somebody left variables of an earlier multi-slice job."""
    stale = {
        "MEGASCALE_COORDINATOR_ADDRESS": "stale:1",
        "MEGASCALE_NUM_SLICES": "7",
        "MEGASCALE_PORT": "1",
        "MEGASCALE_SLICE_ID": "5",
    }
    with start_cluster(env={**hide_sliceform, **stale}) as started:
        started.add_slices([SHAPE.pod_type] * 3)
        yield started


def train(folder: str, last: int) -> dict[str, Any]:
    """Count to `last`, from the step that was saved; on one host per slice, where rank 0 saves for all."""
    from sliceform.controller import Stopped, host_context

    me = host_context()
    saved = Path(folder) / "saved"

    def write(file: Path, text: str) -> None:
        """Whoever reads meanwhile sees the old text or the new."""
        fresh = file.with_name(f"{file.name}.{me.rank}")
        fresh.write_text(text)
        fresh.replace(file)

    def save(step: int) -> None:
        if me.rank == 0:
            write(saved, str(step))

    first = int(saved.read_text()) if saved.exists() else 0
    done = Path(folder) / f"attempt-{me.attempt}-rank-{me.rank}"
    megascale = {name: value for name, value in os.environ.items() if name.startswith("MEGASCALE_")}
    write(done.with_suffix(".env"), json.dumps(megascale))
    for step in range(first + 1, last + 1):
        time.sleep(STEP_S)
        write(done, f"{first} {step}")
        if me.should_stop():
            save(step)
            raise Stopped(f"saved step {step}")
        if step % SAVE_EVERY == 0:
            save(step)
    return {"attempt": me.attempt, "first": first, "slices": me.num_slices}


def steps(folder: Path, attempt: int, rank: int = 0) -> tuple[int, int]:
    """Return the step that an attempt began after, and its last; (0, 0) if it has done none."""
    file = folder / f"attempt-{attempt}-rank-{rank}"
    first, last = file.read_text().split() if file.exists() else (0, 0)
    return int(first), int(last)


def environment(folder: Path, attempt: int) -> dict[str, str]:
    return dict(json.loads((folder / f"attempt-{attempt}-rank-0.env").read_text()))


@pytest.mark.usefixtures("no_leaks")
def test_a_notice_costs_no_step_and_a_kill_those_since_the_last_save(cluster: VirtualCluster, tmp_path: Path) -> None:
    with SliceController(SHAPE, 1, spares=1) as fleet:
        fleet.wait_ready(2, READY_S)
        run = fleet.submit(train, str(tmp_path), 10_000)
        until(lambda: steps(tmp_path, 1)[1] >= SAVE_EVERY + 3, fleet.status)
        (working,) = [row for row in fleet.status().slices if row.state == "running"]
        deadline_ms = int((time.time() + 20) * 1000)
        told = GcsClient(address=cluster.address).drain_node(working.hosts[0].node_id, _PREEMPTION, "spot", deadline_ms)
        assert told[0], told
        until(lambda: steps(tmp_path, 2)[1], fleet.status)
        assert steps(tmp_path, 2)[0] == steps(tmp_path, 1)[1]
        assert run.attempts[0].outcome == "preempted"

        until(lambda: steps(tmp_path, 2)[1] >= steps(tmp_path, 2)[0] + SAVE_EVERY + 3, fleet.status)
        (working,) = [row for row in fleet.status().slices if row.state == "running"]
        cluster.kill_host(next(row for row in cluster.slices if row.name == working.place).hosts[0])
        until(lambda: steps(tmp_path, 3)[1], fleet.status)
        assert 0 <= steps(tmp_path, 2)[1] - steps(tmp_path, 3)[0] <= SAVE_EVERY
        assert [attempt.outcome for attempt in run.attempts] == ["preempted", "preempted", None]
        run.cancel(0.0)
        run.wait(READY_S)
    for broken in [row for row in cluster.slices if not all(host.alive for host in row.hosts)]:
        cluster.remove_slice(broken)


@pytest.mark.usefixtures("no_leaks")
def test_a_run_shrinks_after_a_loss_and_grows_again(cluster: VirtualCluster, tmp_path: Path) -> None:
    """With two slices MEGASCALE variables say so, with one there are none, whatever was left on the host."""
    cluster.add_slices([SHAPE.pod_type] * max(0, 2 - len(cluster.slices)))
    for surplus in cluster.slices[2:]:
        cluster.remove_slice(surplus)
    settings = Settings(settle_s=0.5, scale_up_after_s=1.0, avoid_lost_s=0.0)
    with SliceController(SHAPE, [1, 2], settings=settings) as fleet:
        fleet.wait_ready(2, READY_S)
        run = fleet.submit(train, str(tmp_path), 10_000)
        until(lambda: all(steps(tmp_path, 1, rank)[1] for rank in (0, 1)), fleet.status)
        gone = fleet.status().slices[1]
        lost = next(row for row in cluster.slices if row.name == gone.place)
        cluster.kill_host(lost.hosts[0])
        until(lambda: steps(tmp_path, 2)[1], fleet.status)
        cluster.remove_slice(lost)
        cluster.add_slice(SHAPE.pod_type)
        until(lambda: all(steps(tmp_path, 3, rank)[1] for rank in (0, 1)), fleet.status)
        assert [(a.outcome, len(a.slices)) for a in run.attempts] == [("preempted", 2), ("superseded", 1), (None, 2)]
        assert steps(tmp_path, 3)[0] == steps(tmp_path, 2)[1]
        assert (run.status().preemptions, run.status().failures) == (1, 0)
        run.cancel(0.0)
        run.wait(READY_S)
    first, second, third = (environment(tmp_path, attempt) for attempt in (1, 2, 3))
    assert second == {}
    assert first["MEGASCALE_NUM_SLICES"] == third["MEGASCALE_NUM_SLICES"] == "2"
    assert "stale" not in first["MEGASCALE_COORDINATOR_ADDRESS"]
