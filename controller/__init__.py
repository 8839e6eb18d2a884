"""Keep a fleet of accelerator slices alive on Ray and run functions on all of their hosts.

Names are loaded when they are first used: importing this package imports neither Ray nor pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from sliceform.controller.api.controller import SliceController
    from sliceform.controller.api.run import Run, RunResult
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
    from sliceform.controller.follow.journal import Journal, open_journal
    from sliceform.controller.model.settings import Settings
    from sliceform.controller.model.shapes import CpuSlice, GpuSlice, TpuSlice
    from sliceform.controller.model.status import FleetStatus, HostStatus, RunStatus, SliceStatus
    from sliceform.controller.on_host.context import HostContext, Stopped, host_context, initialize_jax
    from sliceform.controller.reconcile.place_status import FleetPlaces, PlaceStatus

_HOMES = {
    "ClusterError": "errors",
    "ConfigurationError": "errors",
    "CpuSlice": "model.shapes",
    "FleetClosedError": "errors",
    "FleetNameTakenError": "errors",
    "FleetPlaces": "reconcile.place_status",
    "FleetStatus": "model.status",
    "GpuSlice": "model.shapes",
    "HostContext": "on_host.context",
    "HostStatus": "model.status",
    "InsufficientSlicesError": "errors",
    "Journal": "follow.journal",
    "JournalError": "errors",
    "PlaceStatus": "reconcile.place_status",
    "Run": "api.run",
    "RunCancelled": "errors",
    "RunFailed": "errors",
    "RunPreempted": "errors",
    "RunResult": "api.run",
    "RunStatus": "model.status",
    "Settings": "model.settings",
    "SliceController": "api.controller",
    "SliceStatus": "model.status",
    "SliceformError": "errors",
    "Stopped": "on_host.context",
    "TpuSlice": "model.shapes",
    "UnknownSliceError": "errors",
    "UnpicklableFunctionError": "errors",
    "host_context": "on_host.context",
    "initialize_jax": "on_host.context",
    "open_journal": "follow.journal",
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
    if name == "__version__":
        from importlib.metadata import version

        return version("sliceform")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
