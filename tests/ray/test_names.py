"""What hosts say of themselves, as GKE's webhook and TPU VMs have it, when some of it is missing."""

import pytest

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.testing.virtual.cluster import VirtualCluster

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(120)]


@pytest.mark.usefixtures("no_leaks")
def test_what_is_missing_is_named_or_done_without(cluster: VirtualCluster) -> None:
    """Any host of a slice may say its pod type, and none its topology; without a name or worker id it is refused."""
    missing = ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE", "TPU_TOPOLOGY")
    for variable in missing:
        slice_ = cluster.add_slice("v4-8", name=f"no-{variable.lower().replace('_', '-')}", missing=[0])
        cluster.add_host(slice_, 0, env={variable: ""})
    with SliceController(TpuSlice("v4-8"), slices=1) as fleet:
        fleet.wait_ready(timeout_s=60)
        assert fleet.status().slices[0].place == "no-tpu-topology"
        told = str(fleet.places())
    for variable in missing[:3]:
        assert f"is {variable} set there?" in told
    assert "TPU_TOPOLOGY" not in told
