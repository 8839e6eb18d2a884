"""Run the user's function in this fresh process.

The environment is set before anything of the user's is unpickled: the function travels as bytes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

from sliceform.controller.on_host import context as contexts
from sliceform.controller.on_host.attempt_folder import Channel
from sliceform.controller.on_host.envelope import Envelope, failure, returned, stopped
from sliceform.controller.on_host.environment import set_environment
from sliceform.controller.on_host.parcel import unwrap, wrap
from sliceform.controller.on_host.ports import alive_at
from sliceform.controller.on_host.proc import MARK, ancestor, has_proc

log = logging.getLogger("sliceform.on_host")

#: Open for the life of this process; see `Channel.enter` and `ports.alive_at`.
_registered: int | None = None
_visible: Any = None


def run(call: dict[str, Any], work: bytes, held: tuple[Any, ...] = ()) -> tuple[Envelope, Any]:
    """Run one host's part of an attempt.

    Args:
        call: Who this host is in the attempt, and the limits of it; all plain values.
        work: `(function, args, kwargs)`, pickled.
        held: The references in it; see `parcel`.

    Returns:
        The envelope (`status` is `returned`, `raised`, `refused` or `stopped`; see `outcome`) and the value: the bytes
        of its parcel, which Ray then does not copy, or the parcel if there are references in it.

    Raises:
        RuntimeError: another process of the same attempt is still there.

    """
    global _registered  # noqa: PLW0603 - one run per process
    _leave_session()
    channel = Channel(call["incarnation"], f"{call['slice_id']}/{call['host_rank']}", call["attempt"])
    _registered = channel.enter()
    if _registered is None or not _stay_visible(call.get("alive")):
        return stopped(), b""
    context = _context(call, channel)
    try:
        set_environment(call)
        contexts.hand_down(context, channel)
    except (TypeError, ValueError, OSError) as error:
        return failure("refused", error, "the run's environment cannot be set"), b""
    os.environ[MARK] = channel.mark
    contexts.enter(context)
    try:
        function, args, kwargs = unwrap(work, held)
    except BaseException as error:  # noqa: BLE001 - whatever the user's modules raise when imported
        hint = " (install it there, or ship it with runtime_env)" if isinstance(error, ModuleNotFoundError) else ""
        return failure("refused", error, f"the function cannot be unpickled on this host{hint}"), b""
    try:
        value = _call(function, args, kwargs)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are outcomes, too
        asked = contexts.host_context().should_stop()
        _announce(channel)
        envelope = failure("raised", error, unasked=not asked)
        if asked:
            # The others save, too: jax ends them when the host with its coordinator leaves first.
            _shut_jax_down(call["jax_shutdown_s"])
        return envelope, b""
    try:
        packed = wrap(value)
    except BaseException as error:  # noqa: BLE001 - whatever the user's __reduce__ raises
        return failure("raised", error, f"the returned {type(value).__name__} cannot be pickled"), b""
    _shut_jax_down(call["jax_shutdown_s"])
    return returned(), packed if packed.held else packed.data


def _announce(channel: Channel) -> None:
    """Let the agent wait for what was raised; it is told in any case, unless this host is to stop meanwhile."""
    try:
        channel.answering()
    except OSError as error:
        log.warning("the agent does not know that an answer is on its way: %r", error)


def _stay_visible(port: int | None) -> bool:
    """Listen where the driver looks whether this process is alive; return whether it may run anything.

    A driver that finds nobody there, and no raylet, takes this host for dead. So whoever comes late looks for its
    raylet after it listens. None = nobody looks.
    """
    global _visible  # noqa: PLW0603 - one run per process
    if port is None:
        return True
    _visible = alive_at(port)
    return ancestor(b"raylet") is not None or not has_proc()


def _call(function: Any, args: Any, kwargs: Any) -> Any:
    """Return what the function returns; to exit with code 0, as programs do that have done their work, is None."""
    try:
        return function(*args, **kwargs)
    except SystemExit as exited:
        if exited.code is not None and exited.code != 0:
            raise
        return None


def _leave_session() -> None:
    """Give this process a session, by which its children are found; Ray has only made it the leader of a group.

    A leader of a group may not begin a session, so it joins its parent's for a moment.
    """
    try:
        if os.getpgrp() == os.getpid() != os.getsid(0):
            os.setpgid(0, os.getpgid(os.getppid()))
        if os.getsid(0) != os.getpid():
            os.setsid()
    except OSError as error:
        # Its children are then found by group, descent and mark.
        log.info("no session of its own for process %d: %r", os.getpid(), error)
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)


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


def _shut_jax_down(limit_s: float) -> None:
    """Leave the `jax.distributed` world, if there is one, waiting for the others no longer than `limit_s` seconds.

    Whoever leaves without waiting takes the others along: when the process with rank 0 ends, jax aborts all others that
    have not begun to leave. Should they never come, because one of them failed, this process is stopped by its agent.
    """
    distributed = getattr(sys.modules.get("jax"), "distributed", None)
    if distributed is None or not distributed.is_initialized():
        return

    def leave() -> None:
        try:
            distributed.shutdown()
        except Exception as error:  # noqa: BLE001 - the value is there already: nothing that jax raises takes it back
            log.warning("jax.distributed.shutdown() failed: %r", error)

    thread = threading.Thread(target=leave, name="sliceform-jax-shutdown", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        log.warning("jax.distributed.shutdown() did not end within %g s; the process ends without it", limit_s)
