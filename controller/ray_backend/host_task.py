"""Submit the task that runs one host's part of an attempt, in that host's bundle."""

from __future__ import annotations

from typing import Any

from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sliceform.controller.model.backend import FleetIdentity
from sliceform.controller.ray_backend.groups import in_units
from sliceform.controller.ray_backend.lives import Holding, HostTask, Work
from sliceform.controller.ray_backend.pack import Packed


def submit(
    run_host: Any,
    fleet: FleetIdentity,
    holding: Holding,
    work: Work,
    *,
    task: HostTask,
    addresses: tuple[str, str],
    data: Any,
) -> tuple[Any, Any]:
    """Submit it, without waiting; return the references to its envelope and to its value.

    `addresses` are those of the coordinators, for jax and for transfers between slices; `data` are the bytes of the
    work, or a reference to them.
    """
    request, spec = work.request, work.request.attempt
    packed: Packed = spec.work
    call = {
        "attempt": spec.key,
        "run_id": spec.run_id,
        "number": spec.number,
        "rank": request.slice_rank * spec.hosts_per_slice + task.rank,
        "world_size": len(spec.members) * spec.hosts_per_slice,
        "slice_rank": request.slice_rank,
        "num_slices": len(spec.members),
        "host_rank": task.rank,
        "hosts_per_slice": spec.hosts_per_slice,
        "slice_id": holding.slice_id,
        "previous": spec.previous,
        "coordinator_address": addresses[0],
        "megascale_address": addresses[1],
        "devices": request.shape.devices_per_host.count,
        "place": holding.reserved.place if holding.reserved is not None else None,
        "env": dict(spec.env),
        "jax_shutdown_s": spec.jax_shutdown_s,
        "incarnation": fleet.incarnation,
        "alive": ports["alive"] if (ports := holding.agents[task.rank].ports) else None,
    }
    envelope, value = run_host.options(**_options(fleet, holding, work, task, packed)).remote(
        call, data, packed.payload.held
    )
    return envelope, value


def _options(fleet: FleetIdentity, holding: Holding, work: Work, task: HostTask, packed: Packed) -> dict[str, Any]:
    shape = work.request.shape
    resources = in_units(shape, {**shape.bundle, **packed.resources}, holding.units)
    strategy = PlacementGroupSchedulingStrategy(
        placement_group=holding.hosts, placement_group_bundle_index=task.rank, placement_group_capture_child_tasks=False
    )
    options: dict[str, Any] = {
        "name": f"{fleet.label}/{holding.slice_id}/{task.rank}: {work.key}",
        "scheduling_strategy": strategy,
        "num_cpus": resources.pop("CPU", 0),
        "num_gpus": resources.pop("GPU", 0),
        "memory": resources.pop("memory", None),
        "resources": resources or None,
    }
    # A runtime environment makes Ray build a worker of its own on every host: only if somebody asked for one.
    runtime_env = work.request.attempt.runtime_env or packed.runtime_env
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    return options
