"""Follow the history on a thread of one's own: journal, log, metrics and callbacks see values, never the fleet.

The loop only appends and wakes; whatever a consumer does, and however long it takes, costs the loop nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import structlog

from sliceform.states.history import History, Story
from sliceform.states.history.attempt_log import AttemptRecord

log = structlog.get_logger(__name__)

#: Least pause between two batches, seconds: a busy fleet is followed in batches, not change by change.
_PAUSE_S = 0.02
#: How long to wait before a batch that failed is offered again, seconds: at first, and at most.
_RETRY_S = 0.1
_RETRY_MAX_S = 10.0
#: At most so long without a look, seconds, should nobody be told of a publication.
_LOOK_S = 1.0


class Batch(NamedTuple):
    """What has been recorded since the last batch."""

    changes: Story
    #: Attempts that began, or ended, since then: each as it stands now.
    attempts: tuple[AttemptRecord, ...]
    #: Changes that the history forgot before this follower came to them.
    missed: int


class Follower:
    """Hands what is recorded to one consumer, in order, nothing twice."""

    def __init__(
        self,
        history: History,
        published: threading.Condition,
        consume: Callable[[Batch], None],
        *,
        name: str,
        since: int | None = None,
        every_s: float | None = None,
    ) -> None:
        """Take whom to follow; nothing happens before `start`.

        Args:
            history: what is followed.
            published: notified after everything that the loop records.
            consume: takes a batch; when it raises, the same changes are offered again, with later ones, after a pause.
            name: of the consumer, for thread names and the log.
            since: number of the last change that is not wanted any more; by default the newest when it starts.
            every_s: hand over a batch at this pace, seconds, be it empty; by default as soon as something is recorded.

        """
        self._history = history
        self._published = published
        self._consume = consume
        self._name = name
        self._every_s = every_s
        self._since = since
        self._seq = self._revision = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"sliceform-{name}", daemon=True)
        #: Batches that the consumer failed on.
        self.errors = 0

    @property
    def current(self) -> bool:
        """Whether the caller runs on its thread."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Begin to follow."""
        if self._since is None:
            self._seq = self._history.last_seq
            self._revision = self._history.attempts.since(0)[0]
        else:
            self._seq = self._since
        self._thread.start()

    def end(self) -> None:
        """Have it offer what is left once more, and end; does not wait for that."""
        self._stopping.set()
        with self._published:
            self._published.notify_all()

    def stop(self, timeout_s: float) -> bool:
        """End it and wait for that; return whether it was done in time, or is about to be if the consumer asks."""
        self.end()
        if self.current:
            return True
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("follower_left_running", follower=self._name, timeout_s=timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        retry_s = _RETRY_S
        while not self._stopping.is_set():
            with self._published:
                if self._every_s is None and not self._behind():
                    self._published.wait(_LOOK_S)
            if self._offer():
                retry_s = _RETRY_S
                self._stopping.wait(self._every_s or _PAUSE_S)
            else:
                self._stopping.wait(retry_s)
                retry_s = min(_RETRY_MAX_S, 2 * retry_s)
        self._offer()

    def _behind(self) -> bool:
        return self._stopping.is_set() or self._seq < self._history.last_seq

    def _offer(self) -> bool:
        """Hand over what is new, if anything is or the pace asks for it; return whether it was taken."""
        changes = self._history.since(self._seq)
        revision, attempts = self._history.attempts.since(self._revision)
        if not changes and not attempts and self._every_s is None:
            return True
        missed = changes[0].seq - self._seq - 1 if changes else 0
        try:
            self._consume(Batch(changes, attempts, missed))
        except Exception as error:  # noqa: BLE001 - whatever a consumer raises
            self.errors += 1
            log.error("follower_failed", follower=self._name, errors=self.errors, cause=repr(error))  # noqa: TRY400
            return False
        self._seq = changes[-1].seq if changes else self._seq
        self._revision = revision
        return True
