"""References that old code waits for with `ray.get` and `ray.wait`, and that the driver answers when it knows."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
import structlog
from ray.exceptions import ActorHandleNotFoundError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sliceform.controller.compat import mailbox
from sliceform.controller.errors import ClusterError
from sliceform.controller.ray_backend.connect import current_job
from sliceform.controller.ray_backend.session import Session

log = structlog.get_logger(__name__)

#: Promises that can be open at a time: one per host of the largest fleet, ten times over.
_OPEN = 100_000


@dataclass(frozen=True, slots=True)
class Promise:
    """A reference whose value is still to come."""

    number: int
    ref: Any


class Refs:
    """Makes references, and keeps what they promise, through one zero-CPU actor on the driver's node.

    Args:
        on_cancel: called, on a thread of Ray's, with the number of a promise that somebody cancelled with `ray.cancel`.

    """

    def __init__(self, on_cancel: Callable[[int], None]) -> None:
        self._on_cancel = on_cancel
        self._numbers = itertools.count(1)
        self._job = current_job()
        ray.cloudpickle.register_pickle_by_value(mailbox)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        kind = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=_OPEN, scheduling_strategy=here)(mailbox.Mailbox)
        self._mailbox = kind.remote()
        self._listen()

    def value(self, value: Any) -> Any:
        """Return a reference to a value that is there."""
        return ray.put(value)

    def promise(self) -> Promise:
        """Return a promise: its reference can be waited for at once."""
        number = next(self._numbers)
        return Promise(number, self._mailbox.take.remote(number))

    def keep(self, promise: Promise, data: bytes, held: tuple[Any, ...] = ()) -> None:
        """Let the promise's reference become the value that was pickled; `held` are the references in it."""
        self._put(promise.number, data, None, held)

    def fail(self, promise: Promise, error: Exception) -> None:
        """Let the promise's reference raise this."""
        self.fail_as(promise, pickle.dumps(error), str(error))

    def fail_as(self, promise: Promise, error: bytes, text: str) -> None:
        """Let the promise's reference raise the exception that was pickled; `text` is shown with it."""
        self._put(promise.number, error, text)

    def hand(self, refs: Sequence[Any]) -> Any:
        """Return a reference to a list of references."""
        return self._mailbox.hand.remote(list(refs))

    def hand_one(self, ref: Any) -> Any:
        """Return a reference to a reference."""
        return self._mailbox.hand_one.remote([ref])

    def get(self, refs: Sequence[Any]) -> list[Any]:
        """Return the values of references, as `ray.get` does."""
        values: list[Any] = ray.get(list(refs))
        return values

    def close(self) -> None:
        """End the actor: promises that were not kept fail with `ActorDiedError`."""
        self._while_connected(lambda: ray.kill(self._mailbox))

    def _put(self, *letter: Any) -> None:
        """Give the actor something, and let nobody be told of an error should it be dead: its promises tell."""
        self._while_connected(lambda: Session.disregard(self._mailbox.put.remote(*letter)))

    def _while_connected(self, call: Callable[[], Any]) -> None:
        """Ask something of the actor, which went with the connection if that was closed, as all references did."""
        try:
            if current_job() == self._job:
                call()
        except (ClusterError, ActorHandleNotFoundError) as error:
            log.info("references_gone", cause=repr(error))

    def _listen(self) -> None:
        self._while_connected(lambda: self._mailbox.dropped.remote().future().add_done_callback(self._heard))

    def _heard(self, answer: Future[list[int]]) -> None:
        error = answer.exception()
        if error is not None:
            log.debug("mailbox_ended", cause=repr(error))
            return
        for number in answer.result():
            self._on_cancel(number)
        self._listen()
