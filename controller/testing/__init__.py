"""Doubles and stand-ins for tests of code that uses sliceform.

`SimBackend`, `FaultyBackend` and `FakeClock` need no Ray; `VirtualCluster` starts real raylets on this
machine that look like TPU hosts. Names are imported on first use, so that the first three stay
importable where Ray is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sliceform.controller.testing.fake_clock import FakeClock
    from sliceform.controller.testing.faulty import FaultyBackend
    from sliceform.controller.testing.sim.backend import SimBackend
    from sliceform.controller.testing.virtual.cluster import VirtualCluster

__all__ = ["FakeClock", "FaultyBackend", "SimBackend", "VirtualCluster"]

_HOMES = {
    "FakeClock": "fake_clock",
    "FaultyBackend": "faulty",
    "SimBackend": "sim.backend",
    "VirtualCluster": "virtual.cluster",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
