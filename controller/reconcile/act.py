"""Effects that have been decided and whose result has not been observed yet.

A transition puts its effects here; they are submitted after the tick's commits, and again, with backoff, until what
they are for is seen. Nothing is known to be done because it was asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from sliceform.controller.model.effects import Assemble, EffectRequest, Launch, Notify, Release, Reserve, Stop
from sliceform.controller.reconcile.decide.life import Life
from sliceform.states.effects import Effect
from sliceform.states.slices import SliceState

#: First and longest delay before an effect that was neither seen done nor seen to fail is asked for again, seconds.
RESUBMIT_S = 30.0
RESUBMIT_MAX_S = 300.0


@dataclass(slots=True)
class Outstanding:
    """One effect in flight."""

    request: EffectRequest
    due: float
    #: Loop time at which it was decided: a grace in it counts from there.
    since: float
    #: Times submitted, and times seen to fail.
    tries: int = 0
    failures: int = 0
    #: Why it failed last.
    detail: str = ""

    def at(self, now: float) -> EffectRequest:
        """Return it as it is to be asked for now: of the time that work was given, what is left."""
        request = self.request
        if isinstance(request, Stop | Release) and now > self.since:
            return replace(request, grace_s=max(0.0, self.since + request.grace_s - now))
        return request


class Outbox:
    """Outstanding effects by `(life, effect)`; used by the loop's thread alone."""

    def __init__(self, *, backoff_initial_s: float, backoff_max_s: float, rng: random.Random) -> None:
        """Start empty; the two delays, in seconds, are for effects that were seen to fail."""
        self._initial_s = backoff_initial_s
        self._max_s = backoff_max_s
        self._rng = rng
        self._items: dict[tuple[str, Effect], Outstanding] = {}

    def __len__(self) -> int:
        """How many effects are in flight."""
        return len(self._items)

    def get(self, slice_id: str, effect: Effect) -> Outstanding | None:
        """Return an effect in flight."""
        return self._items.get((slice_id, effect))

    def put(self, request: EffectRequest, now: float) -> None:
        """Add an effect, due at once, in the place of one for the same key; a release ends all others of its life.

        A stop says more than a notice to stop, which it ends.
        """
        if request.effect is Effect.RELEASE:
            self.drop(request.slice_id)
        elif request.effect is Effect.STOP:
            self._items.pop((request.slice_id, Effect.NOTIFY), None)
        self._items[request.slice_id, request.effect] = Outstanding(request, now, now)

    def drop(self, slice_id: str) -> None:
        """Forget everything about a life."""
        for effect in Effect:
            self._items.pop((slice_id, effect), None)

    def failed(self, slice_id: str, effect: Effect, now: float, detail: str) -> Outstanding | None:
        """Set the time of the next try of an effect that was seen to fail; None if it is not wanted any more."""
        item = self._items.get((slice_id, effect))
        if item is None:
            return None
        delay = min(self._max_s, self._initial_s * 2 ** min(item.failures, 30))
        item.failures += 1
        item.detail = detail
        item.due = now + delay * self._rng.uniform(0.5, 1.0)
        return item

    def flush(
        self, now: float, submit: Callable[[EffectRequest], None], observed: Callable[[EffectRequest], bool]
    ) -> float:
        """Submit what is due and forget what has been observed; return the loop time of the next submission."""
        due = float("inf")
        for key, item in list(self._items.items()):
            if observed(item.request):
                del self._items[key]
                continue
            if item.due <= now:
                submit(item.at(now))
                delay = min(RESUBMIT_MAX_S, RESUBMIT_S * 2 ** min(item.tries, 10))
                item.tries += 1
                item.due = now + delay * self._rng.uniform(1.0, 1.2)
            due = min(due, item.due)
        return due


def achieved(lives: Mapping[str, Life], request: EffectRequest) -> bool:
    """Whether what an effect is for has been seen; a life that is over has taken its effects along."""
    life = lives[request.slice_id]
    state = life.record.state
    match request:
        case Reserve():
            return state is not SliceState.PENDING
        case Assemble():
            return state is not SliceState.PLACED
        case Launch():
            return _over(life, request.attempt.key)
        case Stop():
            return _over(life, request.attempt_key)
        case Notify():
            key = request.attempt_key
            return life.view.told == (key, request.deadline_epoch_s) or _over(life, key)
        case Release():
            return False  # then the life is gone
        case _:
            assert_never(request)


def _over(life: Life, attempt: str | None) -> bool:
    """Whether a slice works for this attempt no more."""
    view = life.view
    return life.record.attempt != attempt or all(
        host.gone == attempt and (attempt, rank) in view.outcomes for rank, host in enumerate(view.hosts)
    )
