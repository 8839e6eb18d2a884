"""What the hosts of one attempt share: where they meet, on host 0 of its first slice, and the work itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

#: Work larger than this travels through Ray's object store, once per node; smaller work goes with every call, bytes.
_INLINE_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class Meeting:
    """The coordinators' addresses, once they are known, and the work; used on the I/O thread."""

    #: For jax, and for transfers between slices; `address:port` each.
    addresses: tuple[str, str] | None = None
    #: Whether the coordinator's host has been asked.
    asked: bool = False
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    _shared: Any = None

    def share(self, data: bytes) -> Any:
        """Return the bytes of the work as an argument of a task: themselves, or a reference to them.

        A reference is made anew for every attempt. Ray may try to fetch an older one from a copy on a node that has
        just died, and waits half a minute before it tries another.
        """
        if len(data) <= _INLINE_BYTES:
            return data
        if self._shared is None:
            self._shared = ray.put(data)
        return self._shared

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
