"""What `host_context()` gives to a function that runs in a simulated cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sliceform.controller.testing.sim_lives import SimProcess


@contextmanager
def running_as(process: SimProcess) -> Iterator[None]:
    """Let the code inside be the host process that it simulates."""
    del process
    yield
