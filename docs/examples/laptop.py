"""A fleet on this machine alone, without accelerators."""

import logging

import ray
import structlog

from sliceform.controller import CpuSlice, SliceController, host_context

if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    ray.init(num_cpus=2, log_to_driver=False)
    with SliceController(CpuSlice(hosts=2)) as fleet:
        print("ranks", fleet.run(lambda: host_context().rank).values)
