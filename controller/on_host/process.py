"""Run the user's function in this fresh process and put its outcome into a small envelope.

The environment is set before anything of the user's is unpickled: the function travels as bytes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from typing import Any

from ray import cloudpickle

from sliceform.controller.on_host import context as contexts
from sliceform.controller.on_host.channel import Channel
from sliceform.controller.on_host.processes import MARK

log = logging.getLogger("sliceform.on_host")

#: Environment of multi-slice runs, which a single slice must not inherit from its node.
_MEGASCALE = (
    "MEGASCALE_COORDINATOR_ADDRESS",
    "MEGASCALE_NUM_SLICES",
    "MEGASCALE_PORT",
    "MEGASCALE_SLICE_ID",
)
#: Open for the life of this process; see `Channel.enter`.
_registered: int | None = None

Envelope = dict[str, Any]

_HERE = (lambda: 0).__code__.co_filename


def run(call: dict[str, Any], work: bytes) -> tuple[Envelope, bytes]:
    """Run one host's part of an attempt.

    Returns:
        The envelope (`status` is `returned`, `raised`, `refused` or `stopped`) and the pickled value.

    """
    global _registered  # noqa: PLW0603 - one run per process
    with contextlib.suppress(PermissionError):
        os.setsid()
    host = f"{call['slice_id']}/{call['host_rank']}"
    channel = Channel(call["incarnation"], host, call["attempt"])
    os.environ[MARK] = f"{call['incarnation']}:{host}:{call['attempt']}"
    _registered = channel.enter()
    if _registered is None:
        return {"status": "stopped", "pid": os.getpid()}, b""
    set_environment(call)
    contexts.enter(_context(call, channel))
    try:
        function, args, kwargs = cloudpickle.loads(work)
    except BaseException as error:  # noqa: BLE001 - whatever the user's modules raise when imported
        return _failure("refused", error, "the function could not be unpickled on this host"), b""
    try:
        value = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are outcomes, too
        return _failure("raised", error), b""
    try:
        packed = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever the user's __reduce__ raises
        return _failure("raised", error, f"the returned {type(value).__name__} cannot be pickled"), b""
    _shut_jax_down(call["jax_shutdown_s"])
    return {"status": "returned", "pid": os.getpid()}, packed


def set_environment(call: dict[str, Any]) -> None:
    """Set the user's variables, then ours; remove what would make a single slice wait for others."""
    variables: dict[str, str] = {
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
    ours = {f"SLICEFORM_{name}": value for name, value in variables.items()}
    for name in ("rank", "world_size", "slice_rank", "num_slices", "host_rank", "hosts_per_slice", "slice_id"):
        ours[f"SLICEFORM_{name.upper()}"] = str(call[name])
    ours |= {"SLICEFORM_RUN_ID": call["run_id"], "SLICEFORM_ATTEMPT": str(call["number"])}
    os.environ.update(call["env"])
    if call["num_slices"] == 1:
        for name in _MEGASCALE:
            os.environ.pop(name, None)
            os.environ.pop(f"SLICEFORM_{name}", None)
    os.environ.update(variables | ours)


def _context(call: dict[str, Any], channel: Channel) -> contexts.HostContext:
    return contexts.HostContext(
        rank=call["rank"],
        world_size=call["world_size"],
        slice_rank=call["slice_rank"],
        num_slices=call["num_slices"],
        host_rank=call["host_rank"],
        hosts_per_slice=call["hosts_per_slice"],
        slice_id=call["slice_id"],
        run_id=call["run_id"],
        attempt=call["number"],
        previous=call["previous"],
        coordinator_address=call["coordinator_address"],
        _signal=contexts.StopSignal(channel),
    )


def _failure(status: str, error: BaseException, what: str = "") -> Envelope:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == _HERE:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    message = f"{type(error).__name__}: {error}"
    return {
        "status": status,
        "pid": os.getpid(),
        "message": f"{what}: {message}" if what else message,
        "traceback": text,
        "error": _pickled(error),
        "exit_code": error.code if isinstance(error, SystemExit) else None,
    }


def _pickled(error: BaseException) -> bytes | None:
    """Return the exception pickled, if it survives the way; its traceback does not travel."""
    try:
        packed: bytes = cloudpickle.dumps(error.with_traceback(None))
        cloudpickle.loads(packed)
    except Exception as failure:  # noqa: BLE001 - whatever the user's class does
        log.info("the exception itself cannot travel, only its traceback does: %r", failure)
        return None
    return packed


def _shut_jax_down(limit_s: float) -> None:
    """Leave the `jax.distributed` world, waiting for the others no longer than `limit_s` seconds."""
    jax = sys.modules.get("jax")
    if jax is None or getattr(jax.distributed, "is_initialized", lambda: False)() is False:
        return
    thread = threading.Thread(target=jax.distributed.shutdown, name="sliceform-jax-shutdown", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        log.warning("jax.distributed.shutdown() did not end within %g s; the process ends without it", limit_s)
