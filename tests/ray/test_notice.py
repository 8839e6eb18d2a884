"""A node that Ray drains is a notice: the work is told, and a replacement comes before the capacity is gone."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.testing.virtual_cluster import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

#: As in Ray's autoscaler.proto.
_PREEMPTION = 2


def until(done: Callable[[], Any], what: Callable[[], Any], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, str(what())
        time.sleep(0.02)


def stop_when_told(path: str) -> str:
    """Runs on every host: saves and raises when asked to stop, returns on the second attempt."""
    from sliceform.controller import host_context

    context = host_context()
    if context.attempt > 1:
        return f"after {context.previous}"
    Path(f"{path}-up-{context.rank}").touch()
    while not context.should_stop():
        time.sleep(0.02)
    Path(f"{path}-saved-{context.rank}").write_text(str(context.deadline))
    raise RuntimeError("saved, start me again")


@pytest.mark.usefixtures("no_leaks")
def test_a_drained_node_is_a_notice_to_all_hosts_of_the_run(cluster: VirtualCluster, tmp_path: Path) -> None:
    cluster.add_slices(["v4-16"] * 3)
    with SliceController(TpuSlice("v4-16"), 2) as fleet:
        fleet.wait_ready(2, timeout_s=60)
        run = fleet.submit(stop_when_told, str(tmp_path / "host"))
        until(lambda: len(list(tmp_path.glob("host-up-*"))) == 4, fleet.status)
        noticed = fleet.status().slices[0]
        deadline_ms = int((time.time() + 30) * 1000)
        accepted, why = GcsClient(address=cluster.address).drain_node(
            noticed.hosts[1].node_id, _PREEMPTION, "to be taken away", deadline_ms
        )
        assert accepted, why
        values = run.result(timeout_s=60).values
        assert sorted(path.name[-1] for path in tmp_path.glob("host-saved-*")) == ["0", "1", "2", "3"]
        assert float((tmp_path / "host-saved-0").read_text()) == pytest.approx(deadline_ms / 1000, abs=1.0)
        assert len(values) == 4
        assert all(value.startswith("after preempted") for value in values)
        assert (run.status().preemptions, run.status().failures) == (1, 0)
        story = fleet.history.story(noticed.id)
        preempt = next(change for change in story if change.trigger == "preempt" and change.kind == "slice")
        assert preempt.reason == "preemption_notice"
        assert next(change for change in story if change.trigger == "drain").reason == "work_gone"
