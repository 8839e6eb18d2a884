"""Keep a fleet of accelerator slices alive on Ray and run functions on all of their hosts.

Names are loaded when they are first used: importing this package imports neither Ray nor pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sliceform.controller.api import SliceController
    from sliceform.controller.errors import (
        ClusterError,
        ConfigurationError,
        FleetClosedError,
        FleetNameTakenError,
        InsufficientSlicesError,
        JournalError,
        RunCancelled,
        RunFailed,
        RunPreempted,
        SliceformError,
        UnknownSliceError,
        UnpicklableFunctionError,
    )
    from sliceform.controller.journal import Journal, open_journal
    from sliceform.controller.on_host.context import HostContext, Stopped, host_context, initialize_jax
    from sliceform.controller.place_status import FleetPlaces, PlaceStatus
    from sliceform.controller.run import Run, RunResult
    from sliceform.controller.settings import Settings
    from sliceform.controller.spec import CpuSlice, GpuSlice, TpuSlice
    from sliceform.controller.status import FleetStatus, HostStatus, RunStatus, SliceStatus

_HOMES = {
    "ClusterError": "errors",
    "ConfigurationError": "errors",
    "CpuSlice": "spec",
    "FleetClosedError": "errors",
    "FleetNameTakenError": "errors",
    "FleetPlaces": "place_status",
    "FleetStatus": "status",
    "GpuSlice": "spec",
    "HostContext": "on_host.context",
    "HostStatus": "status",
    "InsufficientSlicesError": "errors",
    "Journal": "journal",
    "JournalError": "errors",
    "PlaceStatus": "place_status",
    "Run": "run",
    "RunCancelled": "errors",
    "RunFailed": "errors",
    "RunPreempted": "errors",
    "RunResult": "run",
    "RunStatus": "status",
    "Settings": "settings",
    "SliceController": "api",
    "SliceStatus": "status",
    "SliceformError": "errors",
    "Stopped": "on_host.context",
    "TpuSlice": "spec",
    "UnknownSliceError": "errors",
    "UnpicklableFunctionError": "errors",
    "host_context": "on_host.context",
    "initialize_jax": "on_host.context",
    "open_journal": "journal",
}

__all__ = [
    "ClusterError",
    "ConfigurationError",
    "CpuSlice",
    "FleetClosedError",
    "FleetNameTakenError",
    "FleetPlaces",
    "FleetStatus",
    "GpuSlice",
    "HostContext",
    "HostStatus",
    "InsufficientSlicesError",
    "Journal",
    "JournalError",
    "PlaceStatus",
    "Run",
    "RunCancelled",
    "RunFailed",
    "RunPreempted",
    "RunResult",
    "RunStatus",
    "Settings",
    "SliceController",
    "SliceStatus",
    "SliceformError",
    "Stopped",
    "TpuSlice",
    "UnknownSliceError",
    "UnpicklableFunctionError",
    "host_context",
    "initialize_jax",
    "open_journal",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that it lives in."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
