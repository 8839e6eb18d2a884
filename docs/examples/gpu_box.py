"""Two slices of four GPUs each on one machine: which GPUs each of them has."""

import logging
import os

import structlog

from sliceform.controller import GpuSlice, SliceController


def gpus() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with SliceController(GpuSlice(hosts=1, gpus_per_host=4), slices=2) as fleet:
        print(*sorted(fleet.run(gpus).values))
