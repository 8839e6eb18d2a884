"""Wait for what a cluster brings about, with a bound."""

import time
from collections.abc import Callable
from typing import Any


def until(done: Callable[[], Any], what: Callable[[], Any], within_s: float = 60.0) -> None:
    """Wait for a condition; fail with what there is instead, if it has not come in so many seconds."""
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, str(what())
        time.sleep(0.02)
