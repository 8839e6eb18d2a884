"""See that the claims on slices still exist: Ray tells nobody that a group in which nothing runs was removed.

One row at a time, round and round, on a thread of its own: a row costs half a millisecond, however many groups there
are, and the whole table would also bring those that were removed long ago.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog
from ray.util.placement_group import PlacementGroup

from sliceform.controller.ray_backend import groups

log = structlog.get_logger(__name__)

#: How long one round takes, seconds, if the cluster answers that fast.
_ROUND_S = 1.0


class GroupWatch:
    """Looks at one group after the other."""

    def __init__(
        self, watched: Callable[[], Sequence[PlacementGroup]], removed: Callable[[PlacementGroup], None]
    ) -> None:
        """Take what gives the groups that should exist, and whom to tell of one that does not; both on this thread."""
        self._watched = watched
        self._removed = removed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sliceform-groups", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; return whether it ended in time."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            watched = self._watched()
            for group in watched:
                if self._stopping.wait(_ROUND_S / len(watched)):
                    return
                if seen_removed(group):
                    self._removed(group)
            if not watched and self._stopping.wait(_ROUND_S):
                return


def seen_removed(group: PlacementGroup) -> bool:
    """Whether a group is gone beyond doubt; waits on the GCS."""
    try:
        return groups.is_removed(groups.row_of(group))
    except Exception as error:  # noqa: BLE001 - whatever Ray raises, nothing is known
        log.info("group_unread", cause=repr(error))
        return False
