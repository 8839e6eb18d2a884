"""A fleet of two slices on this machine: what every host says, and what happened to the first slice."""

import logging

import ray
import structlog

from sliceform.controller import SliceController, TpuSlice
from sliceform.controller.testing import VirtualCluster


def greet(greeting: str) -> str:
    from sliceform.controller import host_context

    me = host_context()
    return f"{greeting} from rank {me.rank} of {me.world_size}: host {me.host_rank} of {me.slice_id}"


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with VirtualCluster() as cluster:
        cluster.add_slices(["v4-16", "v4-16"])
        ray.init(address=cluster.address, log_to_driver=False)
        with SliceController(TpuSlice("v4-16"), slices=2) as fleet:
            fleet.wait_ready(timeout_s=60)
            print(fleet.status())
            run = fleet.options(max_preemptions=3).submit(greet, "hello")
            print("\n".join(run.result(timeout_s=60).values))
        print(fleet.history.story("slice-1"))
