"""A driver for any cluster: one fleet, its journal, and a function on all of its hosts."""

import logging
import os
import sys

import structlog

from sliceform.controller import CpuSlice, GpuSlice, SliceController, TpuSlice

SHAPES = {"tpu": TpuSlice("v4-16"), "gpu": GpuSlice(hosts=2, gpus_per_host=8), "cpu": CpuSlice(hosts=2)}


def train() -> str:
    from sliceform.controller import host_context

    me = host_context()
    return f"rank {me.rank} of {me.world_size}"


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    shape, slices = SHAPES[sys.argv[1]], int(sys.argv[2])
    journal = os.environ.get("JOURNAL", "fleet.db")
    with SliceController(shape, slices, name="train", journal=journal) as fleet:
        run = fleet.options(max_preemptions=20).submit(train)
        print("\n".join(run.result().values))
