"""The port through which the controller reaches a cluster: Ray, or a simulator that needs none.

A backend never decides. It carries out requests, reports what it observes, and answers late, twice or not at all when
the world does; the controller is built for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sliceform.controller.model.effects import EffectRequest
from sliceform.controller.model.events import Event
from sliceform.controller.model.finding import Finding
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import SliceShape

__all__ = ["Backend", "Finding", "FleetIdentity", "Sink"]


class Sink(Protocol):
    """Where a backend reports; both methods may be called on any thread and only store what they are given."""

    def post(self, event: Event) -> None:
        """Put an event into the inbox and wake the loop."""
        ...

    def beat(self, slice_id: str, rank: int, *, raylet_ok: bool = True) -> None:
        """Note that a host's agent was heard just now; does not wake the loop.

        `raylet_ok=False`: the agent lives but says that its node's own daemon is stopped or dead, so the host counts as
        heard only by half and falls silent unless that passes.
        """
        ...


@dataclass(frozen=True, slots=True)
class FleetIdentity:
    """What a backend must know of the fleet it works for."""

    #: The user's explicit name, guarded against a second controller; None = no guard.
    name: str | None
    #: Used in the names of everything created: the explicit name, or one made up.
    label: str
    #: Unique to this controller object.
    incarnation: str
    shape: SliceShape
    settings: Settings
    #: Called on every host every `notice_every_s`: None or False = no notice, True, or a deadline in epoch seconds.
    notice_source: Callable[[], bool | float | None] | None = None


class Backend(Protocol):
    """A cluster, as far as the controller is concerned."""

    def open(self, fleet: FleetIdentity, sink: Sink) -> None:
        """Connect and begin to observe.

        Raises:
            ClusterError: the cluster cannot be reached or used.
            FleetNameTakenError: another controller holds the fleet's name.

        """
        ...

    def submit(self, request: EffectRequest) -> None:
        """Take a request; never waits, never raises. What comes of it is reported to the sink."""
        ...

    def forget(self, slice_id: str) -> None:
        """Drop what is kept about a life that has been released; called once, and nothing is asked of it afterwards."""
        ...

    def poll(self) -> None:
        """Deliver what is due; called at the start of every tick. Backends with threads of their own do nothing."""
        ...

    def explain(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> tuple[Finding, ...]:
        """Say why this slice is not ready. May wait on the cluster; called on the user's thread.

        `avoid`: places that are not used now, with the reason.
        """
        ...

    def inquire(self, slice_id: str, place: str | None, avoid: Mapping[str, str]) -> None:
        """Have the same said to the sink, as `Explained`, soon, late or not at all; never waits, never raises."""
        ...

    def pack(
        self,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        runtime_env: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make the work travel: pickle function and arguments once, on the user's thread.

        `runtime_env` is what the run's options have.

        Raises:
            UnpicklableFunctionError: naming the part that cannot be pickled.
            ConfigurationError: the function brings options that cannot be honoured.

        """
        ...

    def close(self) -> None:
        """Let go of everything that is left, within a bound; idempotent."""
        ...
