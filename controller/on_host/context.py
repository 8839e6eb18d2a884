"""What the user's function can ask inside a run: who it is, with whom it runs, and whether it should stop."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sliceform.controller.on_host.attempt_folder import Channel

log = logging.getLogger("sliceform.on_host")

#: Where the context is written down, in the environment of the user's process and of those that it starts.
VARIABLE = "SLICEFORM_CONTEXT"
#: How old an answer of `should_stop` may be, seconds.
_FRESH_S = 0.05


class Stopped(Exception):
    """Raise it when the work has saved because `should_stop()` was true: it is not done, and is to go on later.

    The attempt then ends for the reason that it was asked to stop for, and the run goes on with its next attempt. A
    function that returns instead says that its work is done: when all hosts return, the run has succeeded. Raised
    though nobody asked it to stop, it is a failure like any other.
    """


@dataclass(frozen=True, slots=True)
class HostContext:
    """One host's place in a run."""

    #: `slice_rank * hosts_per_slice + host_rank`, below `world_size`.
    rank: int
    world_size: int
    slice_rank: int
    num_slices: int
    #: Bundle index; on TPU the TPU worker id.
    host_rank: int
    hosts_per_slice: int
    slice_id: str
    run_id: str
    #: Counted from 1.
    attempt: int
    #: Why the attempt before this one ended; None for the first.
    previous: str | None
    #: Address and port on rank 0's host, with a colon between them; free when the attempt began.
    coordinator_address: str
    _signal: StopSignal

    def should_stop(self) -> bool:
        """Whether the work should checkpoint and stop; cheap enough for every step."""
        return self._signal.read()[0]

    @property
    def deadline(self) -> float | None:
        """By when it should have stopped, epoch seconds; None when it need not, or no deadline is known."""
        return self._signal.read()[1]


class StopSignal:
    """Reads the stop file of a channel, at most every so often."""

    def __init__(self, channel: Channel) -> None:
        """Start with nothing read."""
        self._channel = channel
        self._read_at = float("-inf")
        self._last: tuple[bool, float | None] = (False, None)

    def read(self) -> tuple[bool, float | None]:
        """Return whether to stop, and the deadline, epoch seconds; a file that cannot be read changes nothing."""
        now = time.monotonic()
        if now - self._read_at >= _FRESH_S:
            self._read_at = now
            try:
                self._last = self._channel.asked_to_stop()
            except (OSError, ValueError) as error:
                # The user's loop asks this at every step: that is no place to fail.
                log.warning("cannot see whether this work is to stop: %r", error)
        return self._last


_current: HostContext | None = None


def enter(context: HostContext) -> None:
    """Make it what `host_context` returns in this process."""
    global _current  # noqa: PLW0603 - one run per process
    _current = context


def hand_down(context: HostContext, channel: Channel) -> None:
    """Let the processes that this one starts have its context, too, however they are started."""
    known = {field.name: getattr(context, field.name) for field in fields(context) if field.name != "_signal"}
    channel.context_file.write_text(json.dumps(known), encoding="ascii")
    os.environ[VARIABLE] = str(channel.context_file)


def host_context() -> HostContext:
    """Return this host's place in the run; processes that the function starts have the same, as long as it runs.

    Raises:
        RuntimeError: it was not called inside a function that a fleet runs.

    """
    if _current is None:
        enter(_handed_down())
    assert _current is not None
    return _current


def _handed_down() -> HostContext:
    """Return the context of the process that this one descends from."""
    why = "here is no run"
    path = os.environ.get(VARIABLE)
    if path is not None:
        try:
            known = json.loads(Path(path).read_text(encoding="ascii"))
            return HostContext(**known, _signal=StopSignal(Channel.at(Path(path).parent)))
        except FileNotFoundError:
            why = "the run that this process belonged to is over"
        except (OSError, ValueError, TypeError) as error:
            why = f"what {VARIABLE}={path} says cannot be read: {error!r}"
    raise RuntimeError(
        f"host_context() works inside a function run by SliceController.submit or .run, and in what it starts; {why}"
    )


def initialize_jax(**options: Any) -> None:
    """Join all hosts of the run into one `jax.distributed` world; call it before any other use of jax.

    `options` go to `jax.distributed.initialize`. With one host, or called again, there is nothing to do. The world is
    shut down after the function returns. One process of a host can be in it: the function's own, or, if that stays out,
    one that it starts, which leaves when it ends.

    Every process has all accelerators that Ray gave its host, unless `local_device_ids` names some. What else the host
    is part of (Slurm, Open MPI, Kubernetes, a TPU's metadata; see `jax._src.clusters` and `JAX_LOCAL_DEVICE_IDS`) is
    not asked: where Ray was started by `srun` with one task a node, jax would take one GPU of each host.

    Raises:
        RuntimeError: it was not called inside a function that a fleet runs, or jax cannot join.
        ModuleNotFoundError: jax is not installed on this host.

    """
    context = host_context()
    if context.world_size == 1:
        return
    try:
        import jax
    except ModuleNotFoundError as error:
        if error.name == "jax":
            error.add_note("initialize_jax() needs jax on every host: install it there, or ship it with runtime_env")
        raise
    if jax.distributed.is_initialized():
        return
    jax.distributed.initialize(
        coordinator_address=context.coordinator_address,
        num_processes=context.world_size,
        process_id=context.rank,
        # None would let jax look for a cluster that knows; an empty list it takes for no restriction.
        **{"local_device_ids": [], "cluster_detection_method": "deactivate", **options},
    )
