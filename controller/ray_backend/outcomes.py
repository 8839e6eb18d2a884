"""How a host's process ended, from what its task left: an envelope, or one of Ray's exceptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import exceptions

from sliceform.controller.errors import ResultLost
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.on_host.parcel import unwrap
from sliceform.controller.ray_backend.failures import words

_STOPPED = "stopped by the controller"
_KINDS = {
    "returned": OutcomeKind.RETURNED,
    "raised": OutcomeKind.RAISED,
    "refused": OutcomeKind.REFUSED,
    "stopped": OutcomeKind.STOPPED,
}


def stopped(detail: str = _STOPPED) -> Outcome:
    """Return the outcome of a process that we ended."""
    return Outcome(OutcomeKind.STOPPED, detail)


def died(detail: str, *, unasked: bool, ours: bool) -> Outcome:
    """Return the outcome of a process that vanished, on a host that lives; `ours` if we were ending it there."""
    if ours and not unasked:
        return stopped()
    return Outcome(OutcomeKind.CRASHED, detail, unasked=unasked)


def lost(detail: str) -> Outcome:
    """Return the outcome of a process whose host went away."""
    return Outcome(OutcomeKind.LOST, detail)


def refused(detail: str) -> Outcome:
    """Return the outcome of a process that could not be started."""
    return Outcome(OutcomeKind.REFUSED, detail)


def from_envelope(envelope: Mapping[str, Any], value: Any) -> Outcome:
    """Read an envelope; `value` is the reference to the returned value's bytes or parcel."""
    kind = _KINDS[envelope["status"]]
    if kind is OutcomeKind.RETURNED:
        return Outcome(kind, load=_loader(value))
    if kind is OutcomeKind.STOPPED:
        return stopped()
    return Outcome(
        kind,
        detail=envelope.get("message") or "",
        traceback=envelope.get("traceback") or "",
        error=envelope.get("error"),
        types=tuple(envelope.get("types") or ()),
        exit_code=envelope.get("exit_code"),
        unasked=envelope.get("unasked", False),
    )


def _loader(value: Any) -> Callable[[], Any]:
    # Begins to bring it here, and does not wait: the host may be gone before anybody asks.
    ray.wait([value], timeout=0, fetch_local=True)

    def load() -> Any:
        try:
            packed = ray.get(value)
        except exceptions.RayError as error:
            raise ResultLost(f"the value that this host returned is lost: {words(error)}") from error
        return unwrap(packed) if isinstance(packed, bytes) else unwrap(*packed)

    return load


def from_error(error: BaseException, *, stopping: bool, releasing: bool) -> Outcome:
    """Read the exception of a task.

    Args:
        error: what Ray raised.
        stopping: we are ending this attempt here, so that a process that just vanished was killed by us.
        releasing: we are removing the groups.

    """
    detail = words(error)
    if isinstance(error, exceptions.NodeDiedError | exceptions.TaskUnschedulableError | exceptions.OwnerDiedError):
        return lost(detail)
    if isinstance(error, exceptions.TaskPlacementGroupRemoved):
        return stopped() if stopping or releasing else lost(detail)
    if isinstance(error, exceptions.TaskCancelledError):
        return stopped() if stopping or releasing else Outcome(OutcomeKind.CRASHED, f"cancelled from outside: {detail}")
    if isinstance(error, exceptions.OutOfMemoryError):
        return Outcome(OutcomeKind.CRASHED, f"out of memory: {detail}")
    if isinstance(error, exceptions.WorkerCrashedError):
        return stopped() if stopping or releasing else Outcome(OutcomeKind.CRASHED, detail)
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        return refused(f"its runtime_env could not be set up: {detail}")
    if isinstance(error, exceptions.RayTaskError):
        # Raised around the user's function, not by it: by what sets it up on the host.
        return Outcome(OutcomeKind.REFUSED, detail, traceback=str(error))
    return Outcome(OutcomeKind.CRASHED, detail)


def may_be_loss(error: BaseException) -> bool:
    """Whether an exception leaves open if the process or its whole host went away."""
    return isinstance(error, exceptions.WorkerCrashedError)
