"""What a virtual host is to be: the parameters of its raylet and the variables of its processes.

Pure but for the environment of this process, which the hosts inherit.
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sliceform.controller.model.topology import PodType
from sliceform.controller.testing.virtual.processes import MARK

_MEBIBYTE = 1024 * 1024

#: Variables of the surrounding process that would make a host something other than its parameters say.
_NOT_INHERITED = (
    "ASCEND_RT_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "MEGASCALE_",
    "RAY_ADDRESS",
    "RAY_JOB_ID",
    "RAY_OVERRIDE_",
    "RAY_RAYLET_PID",
    "SLICEFORM_",
    "TPU_",
)


@dataclass(frozen=True)
class HostPlan:
    """What a virtual host is to be, before it runs."""

    name: str
    #: `<cluster>/<host>`: what its processes carry in the environment.
    mark: str
    #: Keyword arguments of Ray's `RayParams`.
    params: Mapping[str, Any]
    env: Mapping[str, str] = field(repr=False)
    log: Path
    slice_name: str | None = None
    worker_id: int | None = None
    head: bool = False
    #: Whether Ray's agent exports metrics.
    metrics: bool = False


def head_params(
    cpus: int, *, ip: str | None, directory: Path, system_config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What only the head has: an address, Ray's files in `directory`, no dashboard, no autoscaler."""
    return {
        **({} if ip is None else {"node_ip_address": ip}),
        "num_cpus": cpus,
        "temp_dir": str(directory),
        "include_dashboard": False,
        "no_monitor": True,
        "_system_config": dict(system_config) if system_config else None,
    }


def member_params(address: str) -> dict[str, Any]:
    """What all hosts but the head have: the GCS to join, and no log monitor.

    One log monitor serves all, which share the session's directory.
    """
    return {
        "gcs_address": address,
        "node_ip_address": ip_of(address),
        "include_log_monitor": False,
    }


def common_params(name: str, *, sockets: Path, object_store_mb: int) -> dict[str, Any]:
    """What every host has: sockets and free ports of its own, no GPUs of this machine."""
    return {
        "num_gpus": 0,
        "node_name": name,
        "object_store_memory": object_store_mb * _MEBIBYTE,
        "raylet_socket_name": f"{sockets}.r",
        "plasma_store_socket_name": f"{sockets}.p",
        "min_worker_port": 0,
        "max_worker_port": 0,
        # The default is one number for all hosts of a machine.
        "dashboard_agent_listen_port": 0,
    }


def tpu_variables(kind: PodType, name: str, ip: str) -> dict[str, str]:
    """The variables that all hosts of a slice share; Ray derives labels and resources from them."""
    return {
        "TPU_NAME": name,
        "TPU_ACCELERATOR_TYPE": kind.pod_type,
        "TPU_TOPOLOGY": kind.topology,
        "TPU_WORKER_HOSTNAMES": ",".join([ip] * kind.hosts),
        "TPU_SKIP_MDS_QUERY": "true",
    }


def ip_of(address: str) -> str:
    """The host part: Ray's choice, for `ray.init` turns a loopback address into it."""
    return address.rpartition(":")[0].strip("[]")


def start_order(hosts: int, shuffle: int | None) -> list[int]:
    """The worker ids in the order of their start; with a seed never the natural one."""
    order = list(range(hosts))
    if shuffle is not None and hosts > 1:
        while order == sorted(order):
            random.Random(shuffle).shuffle(order)
            shuffle += 1
    return order


def environment(plan: HostPlan) -> dict[str, str]:
    """All variables of the first process of a host, and thus of all that it starts."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {**inherited, **plan.env, MARK: plan.mark}
