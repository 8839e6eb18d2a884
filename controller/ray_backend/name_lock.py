"""Guard an explicit fleet name: one controller per name and cluster.

The name is held by a named actor without CPUs on the driver's own node, which dies with its driver. Ray checks a name
before it creates the actor, so that two may race: the token says who won.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sliceform.controller.errors import ClusterError, FleetNameTakenError

log = structlog.get_logger(__name__)

NAMESPACE = "sliceform"
#: How long a holder may take to start and answer, seconds.
_ANSWER_S = 30.0
#: How long the actor of a driver that has ended may go on to hold the name, seconds.
_LINGER_S = 15.0
_AGAIN_S = 0.1


class NameLock:
    """Holds a name from `take` to `release`."""

    def __init__(self, name: str, token: str) -> None:
        """Take the name, and a token that only this controller knows."""
        self._name = name
        self._token = token
        self._actor: Any = None

    def take(self) -> None:
        """Take the name; waits, bounded, for a holder that is about to be gone.

        Raises:
            FleetNameTakenError: another controller holds it; the error says which.
            ClusterError: the actor could not be started.

        """
        end = time.monotonic() + _LINGER_S
        while True:
            try:
                actor = self._create_or_get()
                token, holder = ray.get(actor.who.remote(), timeout=_ANSWER_S)
            except ray.exceptions.GetTimeoutError as error:
                raise FleetNameTakenError(self._name, "a controller that does not answer") from error
            except (ray.exceptions.RayError, ValueError) as error:
                # The holder ends just now: its driver has ended, and Ray has not cleared up after it yet.
                if time.monotonic() > end:
                    raise ClusterError(f"the fleet name {self._name!r} could not be taken: {error}") from error
                log.debug("name_lingers", name=self._name, cause=repr(error))
                time.sleep(_AGAIN_S)
                continue
            if token != self._token:
                raise FleetNameTakenError(self._name, holder)
            self._actor = actor
            return

    def release(self) -> None:
        """Let go of the name; idempotent."""
        actor, self._actor = self._actor, None
        if actor is None:
            return
        try:
            ray.kill(actor)
        except (ray.exceptions.RayError, ValueError) as error:
            log.warning("name_not_released", name=self._name, cause=repr(error))

    def _create_or_get(self) -> Any:
        here = ray.get_runtime_context().get_node_id()
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        program = Path(sys.argv[0]).name or "python"
        who = f"{program}, process {os.getpid()} on {socket.gethostname()}, since {since}"
        return (
            ray.remote(_holder_class())
            .options(
                name=f"fleet/{self._name}",
                namespace=NAMESPACE,
                get_if_exists=True,
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            )
            .remote(self._token, who)
        )


def _holder_class() -> type:
    """Return the actor's class; made here, it travels by value to nodes that know nothing of this module."""

    class FleetName:
        def __init__(self, token: str, who: str) -> None:
            self._answer = token, who

        def who(self) -> tuple[str, str]:
            return self._answer

    return FleetName
