"""JAX in this process is to use the processor, whatever the machine has, and the demo must not keep the logs."""

import os
from collections.abc import Iterator

import pytest
import structlog

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """The demo takes the logs of the process it runs in."""
    yield
    structlog.reset_defaults()
