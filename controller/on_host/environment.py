"""The environment of the user's process: who it is, and whom it runs with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sliceform.controller.on_host import context as contexts
from sliceform.controller.on_host.proc import MARK

#: Variables of runs over several slices, which a single slice must not inherit: it would wait for the others.
_MEGASCALE = (
    "MEGASCALE_COORDINATOR_ADDRESS",
    "MEGASCALE_NUM_SLICES",
    "MEGASCALE_PORT",
    "MEGASCALE_SLICE_ID",
)
#: What else is set here for the libraries that read it.
_LIBRARIES = (
    "TPU_HOST_ID",
    "TPU_SLICE_NAME",
    "TPU_NUM_DEVICES",
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
_PLACE = ("rank", "world_size", "slice_rank", "num_slices", "host_rank", "hosts_per_slice", "slice_id", "run_id")
#: All that is set here, or removed, whatever a user says.
OURS = frozenset(
    {
        *_LIBRARIES,
        *_MEGASCALE,
        *(f"SLICEFORM_{name.upper()}" for name in (*_LIBRARIES, *_MEGASCALE, *_PLACE, "attempt")),
        MARK,
        contexts.VARIABLE,
    }
)


def set_environment(call: Mapping[str, Any]) -> None:
    """Set the user's variables in this process, then ours.

    Raises:
        TypeError: a variable of the user's is not text.
        ValueError: its name or value is nothing that an environment can hold.

    """
    variables = _variables(call)
    ours = {f"SLICEFORM_{name}": value for name, value in variables.items()}
    ours |= {f"SLICEFORM_{name.upper()}": str(call[name]) for name in _PLACE}
    ours["SLICEFORM_ATTEMPT"] = str(call["number"])
    os.environ.update(call["env"])
    for name in _MEGASCALE:
        os.environ.pop(name, None)
        os.environ.pop(f"SLICEFORM_{name}", None)
    os.environ.update(variables | ours)


def _variables(call: Mapping[str, Any]) -> dict[str, str]:
    """Return what TPU, multi-slice and jax libraries read."""
    variables = {
        "TPU_HOST_ID": str(call["host_rank"]),
        "TPU_SLICE_NAME": call["place"] or call["slice_id"],
        "TPU_NUM_DEVICES": str(call["devices"]),
        "JAX_COORDINATOR_ADDRESS": call["coordinator_address"],
        "JAX_NUM_PROCESSES": str(call["world_size"]),
        "JAX_PROCESS_ID": str(call["rank"]),
    }
    if call["num_slices"] > 1:
        address, _, port = call["megascale_address"].rpartition(":")
        variables |= {
            "MEGASCALE_COORDINATOR_ADDRESS": address,
            "MEGASCALE_NUM_SLICES": str(call["num_slices"]),
            "MEGASCALE_PORT": port,
            "MEGASCALE_SLICE_ID": str(call["slice_rank"]),
        }
    return variables
