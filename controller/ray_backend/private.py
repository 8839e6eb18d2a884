"""All of Ray that has no public API, in one place; each piece degrades to "unknown" when Ray changes.

Checked against Ray 2.60.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
import structlog

log = structlog.get_logger(__name__)


def draining_nodes() -> Mapping[str, float]:
    """Return node id -> deadline (epoch seconds, 0.0 = none) of the nodes that Ray drains; empty if unknown."""
    try:
        from ray._private.state import state

        draining = state.get_draining_nodes()
    except (ImportError, AttributeError, TypeError) as error:
        log.debug("draining_unknown", cause=repr(error))
        return {}
    return {node: (deadline_ms or 0) / 1000 for node, deadline_ms in draining.items()}


def client_connected() -> bool:
    """Whether this process uses Ray Client."""
    try:
        from ray.util.client import ray as client

        return bool(client.is_connected())
    except (ImportError, AttributeError):
        return False


def remote_function_parts(fn: Any) -> tuple[Any, Mapping[str, Any]] | None:
    """Return the function behind a Ray remote function and the options that it was given; None if it is not one."""
    if not isinstance(fn, ray.remote_function.RemoteFunction):
        return None
    plain = getattr(fn.remote, "__wrapped__", None) or getattr(fn, "_function", None)
    return plain, dict(getattr(fn, "_default_options", {}) or {})
