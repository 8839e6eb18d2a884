"""Guard an explicit fleet name: one controller per name and cluster, by a named actor that dies with its driver."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

import ray

from sliceform.controller.errors import BackendError, FleetNameTakenError

NAMESPACE = "sliceform"
#: How long the holder may take to answer, and a dead holder to let go, seconds.
_ANSWER_S = 10.0
_LINGER_S = 15.0


class Holder:
    """The actor that holds a name."""

    def __init__(self, token: str, who: str) -> None:
        self._token, self._who = token, who

    def token(self) -> tuple[str, str]:
        """Say who holds the name."""
        return self._token, self._who


class NameLock:
    """Holds a fleet's name from `take` to `release`."""

    def __init__(self, name: str, token: str) -> None:
        """Take the name, and a token that only this controller knows."""
        self._name = name
        self._token = token
        self._actor: Any = None

    def take(self) -> None:
        """Take the name; two who try at once ask the actor who won.

        Raises:
            FleetNameTakenError: another controller holds it.

        """
        since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        who = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        end = time.monotonic() + _LINGER_S
        while True:
            actor = self._create_or_get(who)
            try:
                token, holder = ray.get(actor.token.remote(), timeout=_ANSWER_S)
            except ray.exceptions.GetTimeoutError as error:
                raise FleetNameTakenError(self._name, "a controller that does not answer") from error
            except ray.exceptions.RayActorError as error:
                # The holder's driver has just ended; Ray frees the name when it has cleaned up after it.
                if time.monotonic() > end:
                    raise FleetNameTakenError(self._name, "a driver that has ended and still lingers") from error
                time.sleep(0.1)
                continue
            if token != self._token:
                raise FleetNameTakenError(self._name, holder)
            self._actor = actor
            return

    def release(self) -> None:
        """Let go of the name; idempotent."""
        if self._actor is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._actor)
            self._actor = None

    def _create_or_get(self, who: str) -> Any:
        holder = ray.remote(num_cpus=0)(Holder)
        try:
            options = holder.options(name=f"fleet/{self._name}", namespace=NAMESPACE, get_if_exists=True)
            return options.remote(self._token, who)
        except ray.exceptions.RayError as error:
            raise BackendError(f"the name {self._name!r} could not be taken: {error}") from error
