"""Run one host's own call: its slice was called host by host, each with arguments and variables of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from sliceform.controller.on_host.context import host_context
from sliceform.controller.on_host.parcel import Parcel, unwrap, wrap

#: What a run over one slice sets, though its caller may be joining several: who sets none of these wants none.
_OF_THE_RUN = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def run_own_call(
    calls: Mapping[int, tuple[Mapping[str, str], int]], works: Sequence[tuple[bytes, tuple[Any, ...]]]
) -> Parcel | None:
    """Return the value of this host's call as a parcel; nothing on a host that was not called.

    Args:
        calls: by host rank, the variables of its call and the index of its work.
        works: parcels of `(function, args, kwargs)`; kept once each, as hosts mostly share one.

    """
    call = calls.get(host_context().host_rank)
    if call is None:
        return None
    variables, index = call
    for name in _OF_THE_RUN:
        os.environ.pop(name, None)
    os.environ.update(variables)
    function, args, kwargs = unwrap(*works[index])
    return wrap(function(*args, **kwargs))
