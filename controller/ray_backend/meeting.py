"""Where the hosts of one attempt meet: an address and free ports on host 0 of its first slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Meeting:
    """The coordinators' addresses, once they are known; who waits for it is called on the I/O thread."""

    #: For jax, and for transfers between slices; `address:port` each.
    addresses: tuple[str, str] | None = None
    #: Whether the coordinator's host has been asked.
    asked: bool = False
    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def when_known(self, then: Callable[[], None]) -> None:
        """Call `then` now, or once the addresses are known."""
        if self.addresses is not None:
            then()
        else:
            self._waiting.append(then)

    def settle(self, addresses: tuple[str, str]) -> None:
        """Tell all who wait."""
        self.addresses = addresses
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()
