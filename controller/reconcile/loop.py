"""The reconcile loop: observe, sync, plan, commit, act.

One thread writes all records, here. A tick never waits: what has to wait is asked of the backend, and its outcome comes
back through the inbox.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Iterable, Sequence

import structlog

from sliceform.controller.model.backend import Backend
from sliceform.controller.model.clock import Clock
from sliceform.controller.model.effects import Launch, Notify, Request, Stop
from sliceform.controller.model.events import (
    EffectFailed,
    Event,
    Explained,
    HostDied,
    NodesSeen,
    ObservationFailed,
    ProcessEnded,
    ProcessGone,
)
from sliceform.controller.reconcile.commit import ask_anew, commit, renew
from sliceform.controller.reconcile.conduct import Conductor
from sliceform.controller.reconcile.decide.fold import fold, fold_node
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.plan import pauses_growth, plan
from sliceform.controller.reconcile.decide.step import Decision, Step
from sliceform.controller.reconcile.decide.sync import FOREVER, due, silent_ranks, sync
from sliceform.controller.reconcile.inbox import Inbox
from sliceform.controller.reconcile.inquiry import Inquiry
from sliceform.controller.reconcile.kinds import turns_over
from sliceform.controller.reconcile.ledger import Fleet
from sliceform.controller.reconcile.loop_time import FairTime
from sliceform.controller.reconcile.place_status import FleetPlaces, places_now
from sliceform.controller.reconcile.publish import StatusBoard
from sliceform.controller.reconcile.status import FleetStatus
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState, SliceTrigger

log = structlog.get_logger(__name__)

#: Facts of one life lead to further facts of it at most so often within a tick.
_MAX_PASSES = 8
#: A node table not read for so many periods (plus five seconds) counts as a failed observation.
_STALE_READS = 5
#: Ticks whose duration is kept for whoever measures them.
_TICKS_KEPT = 4_096


class Reconciler:
    """Brings what exists to what is desired, one tick at a time."""

    def __init__(self, fleet: Fleet, backend: Backend, clock: Clock, *, label: str, seed: int) -> None:
        """Take what it works on; nothing happens before the first tick."""
        self.fleet = fleet
        self.inbox = Inbox()
        self.conductor = Conductor(fleet, seed)
        self.backend = backend
        self._clock = clock
        self._time = FairTime(clock, max_gap_s=2 * fleet.settings.resync_s)
        self._observed_at = clock.monotonic()
        self.board = StatusBoard(fleet, label)
        self._ticks: deque[float] = deque(maxlen=_TICKS_KEPT)
        self._swept = True
        self._places_known = (-1, -1)
        self._inquiry = Inquiry()

    # What the backend calls, on any thread.

    def post(self, event: Event) -> None:
        """Take an event."""
        self.inbox.post(event)

    def beat(self, life: str, rank: int, *, raylet_ok: bool = True) -> None:
        """Note that an agent was heard, and whether its node's daemon is well; wakes nobody."""
        known = self.fleet.picture.lives.get(life)
        if known is not None:
            known.heard[rank] = self.fleet.picture.now
            if raylet_ok:
                known.raylet_heard[rank] = self.fleet.picture.now

    # One tick.

    def tick(self) -> float:
        """Do everything that is to be done now; return after how many seconds to tick again at the latest."""
        # Not the injected clock: this is what the machine needs, and a simulated time stands still meanwhile.
        begun = time.perf_counter()
        try:
            return self._tick()
        finally:
            self._ticks.append(time.perf_counter() - begun)

    def _tick(self) -> float:
        fleet, picture = self.fleet, self.fleet.picture
        fleet.tick += 1
        self.backend.poll()
        events, requests = self.inbox.take()
        self._look_at_the_time(events)
        for event in events:
            self._take(event)
        for request in requests:
            request()
        self._look_at_places()
        next_due = self._sync()
        look, ended = self.conductor.oversee()
        if ended:
            # Slices whose attempt has just been found over are free at once, for the next run or attempt.
            next_due = self._sync()
        next_due = min(next_due, look)
        if pauses_growth(picture):
            picture.growth.pause(picture.now)
        decision = plan(picture)
        self._do(decision)
        if picture.now >= picture.backoff.until:
            # All that had to be replaced has been; a slice that is created later replaces none of these.
            picture.unreplaced.clear()
        next_due = min(next_due, decision.due, self._places_due())
        next_due = min(next_due, fleet.outbox.flush(picture.now, self.backend.submit, self._observed))
        # Last: nothing is asked of these any more.
        while fleet.released:
            self.backend.forget(fleet.released.pop())
        self._inquiry.ask(picture, self.backend)
        self.board.publish()
        return max(0.0, min(fleet.settings.resync_s, next_due - picture.now))

    def take_ticks(self) -> tuple[float, ...]:
        """Return how long the ticks since the last call took, seconds, or the last of them; for one other thread."""
        # The loop may append meanwhile, and drop one on the left at the limit: there are never fewer.
        return tuple([self._ticks.popleft() for _ in range(len(self._ticks))])

    @property
    def status(self) -> FleetStatus:
        """The fleet after the last tick; may be read on any thread."""
        return self.board.status

    def places(self) -> FleetPlaces:
        """Return what is known of every place."""
        return places_now(self.fleet)

    def preview(self) -> tuple[Step, ...]:
        """Return what the next tick would commit, as far as it is known now, without doing any of it."""
        fleet = self.fleet
        lives = {name: _copy(life) for name, life in fleet.picture.lives.items()}
        limits = fleet.limits(silence_held=self._silence_held(lives.values(), lives.values()))
        picture = copy.copy(fleet.picture)
        picture.lives = lives
        picture.unreplaced = list(picture.unreplaced)
        picture.surveyed = True  # the next tick may be the one that sees the node table first
        facts: list[Step] = []
        for life in lives.values():
            steps = sync(life, picture.now, limits)
            facts += steps
            for step in steps:
                _assume(fleet, life, step)
                if step.rank is None and step.trigger in {SliceTrigger.PREEMPT, SliceTrigger.EXPIRE}:
                    picture.unreplaced.append(step.life)
        if pauses_growth(picture):
            picture.growth = copy.copy(picture.growth)
            picture.growth.pause(picture.now)
        return (*facts, *plan(picture).steps)

    def _look_at_the_time(self, events: Sequence[Event]) -> None:
        """Count the time since the last tick, unless the look at the cluster that ended it failed."""
        fleet, picture = self.fleet, self.fleet.picture
        looks = [event for event in events if isinstance(event, NodesSeen | ObservationFailed)]
        if looks and isinstance(looks[-1], ObservationFailed):
            self._take(looks[-1])
        stale_s = _STALE_READS * fleet.settings.nodes_every_s + 5.0
        if not fleet.blind and self._clock.monotonic() - self._observed_at > stale_s:
            fleet.blind = f"the node table was not read for {stale_s:g} s"
        picture.now = self._time.tick(blind=bool(fleet.blind))
        picture.epoch = self._clock.epoch()
        picture.blind = bool(fleet.blind)

    def _look_at_places(self) -> None:
        """Have what waits for a place follow what is known of places."""
        fleet, picture = self.fleet, self.fleet.picture
        picture.places.settle(picture.now, fleet.nodes if self._swept else None, self._waiting_since())
        self._swept = False
        fleet.place_map.settle(picture.now)
        known = (fleet.place_map.version, picture.places.version)
        if known != self._places_known:
            self._places_known = known
            renew(fleet)
            for life in picture.lives.values():
                if life.record.state in _UNMADE:
                    life.due = picture.now
        for life in turns_over(fleet):
            ask_anew(fleet, life)

    def _places_due(self) -> float:
        """Return the loop time at which time alone changes what is known of places."""
        fleet = self.fleet
        return min(fleet.picture.places.due(self._waiting_since()), fleet.place_map.due)

    def _waiting_since(self) -> float | None:
        """Return since when a slice waits for its reservation; None, too, if that decides nothing."""
        picture = self.fleet.picture
        if not picture.places.on_trial:
            return None
        return min((life.record.since for life in picture.lives.values() if life.waits_for_reservation), default=None)

    def _take(self, event: Event) -> None:
        fleet, picture = self.fleet, self.fleet.picture
        if isinstance(event, NodesSeen):
            self._take_nodes(event)
            return
        if isinstance(event, ObservationFailed):
            if not fleet.blind:
                log.warning("observation_failed", tick=fleet.tick, detail=event.detail)
            fleet.blind = event.detail or "the observation failed"
            picture.blind = True
            return
        if isinstance(event, Explained):
            self._inquiry.answered(picture, event)
            return
        if isinstance(event, ProcessEnded):
            self.conductor.ended(event)
        elif isinstance(event, ProcessGone):
            self.conductor.gone(event)
        elif isinstance(event, HostDied):
            self.conductor.died(event)
        life = picture.lives.get(event.life)
        if life is None:
            return
        if isinstance(event, EffectFailed):
            self._effect_failed(event)
        else:
            fold(life, event, picture.now)

    def _take_nodes(self, event: NodesSeen) -> None:
        """Take in a complete read: only nodes whose row changed can change what is known of a slice."""
        fleet, picture = self.fleet, self.fleet.picture
        before = fleet.nodes
        fleet.nodes = event.nodes
        fleet.blind, picture.blind = "", False
        self._observed_at = self._clock.monotonic()
        self._swept = self._swept or bool(event.changed)
        fleet.place_map.take(event.nodes, event.changed, picture.now)
        picture.surveyed = True
        for node_id in event.changed:
            row = event.nodes.get(node_id)
            for life_id, rank in fleet.users.get(node_id, ()):
                life = picture.lives.get(life_id)
                if life is not None:
                    fold_node(life, rank, node_id, row)
            if row is not None and row.alive and node_id not in before:
                picture.growth.resume()

    def _effect_failed(self, event: EffectFailed) -> None:
        fleet, picture = self.fleet, self.fleet.picture
        item = fleet.outbox.failed(event.life, event.effect, picture.now, event.detail)
        if item is None:
            return
        wait_s = item.due - picture.now
        detail = f"{event.effect.value} failed ({item.failures}), again in {wait_s:.1f} s: {event.detail}"
        commit(fleet, Step(event.life, None, None, Reason.EFFECT_FAILED, detail))

    def _sync(self) -> float:
        """Commit the facts; return the loop time at which time alone may bring more."""
        fleet, picture = self.fleet, self.fleet.picture
        now = picture.now
        stale = [life for life in picture.lives.values() if life.due <= now or life.synced != life.version]
        limits = fleet.limits(silence_held=self._silence_held(stale, picture.lives.values()))
        for _ in range(_MAX_PASSES):
            if not stale:
                break
            moved = []
            for life in stale:
                steps = sync(life, now, limits)
                life.synced = life.version
                for step in steps:
                    commit(fleet, step)
                if steps:
                    moved.append(life)
                life.due = due(life, limits)
                if life.due <= now:
                    life.due = now + fleet.settings.resync_s
            stale = [life for life in moved if life.record.state is not None]
        return min((life.due for life in picture.lives.values()), default=FOREVER)

    def _silence_held(self, looked_at: Iterable[Life], lives: Iterable[Life]) -> bool:
        """Whether so many slices fell silent together that it is more likely us who cannot hear.

        Slices cut off at the same moment fall silent up to a beat apart, so those about to do so count, too. Whom it
        concerns is asked first: all others need not be counted when none of those `looked_at` is silent.
        """
        settings = self.fleet.settings
        now = self.fleet.picture.now
        if not any(silent_ranks(life, now, settings.effective_silence_s) for life in looked_at):
            return False
        soon_s = max(settings.beat_s, settings.effective_silence_s - 1.5 * settings.beat_s)
        heard = [life for life in lives if life.record.state in _HEARD]
        if len(heard) < 2:  # noqa: PLR2004 - "more than half of two or more"
            return False
        silent = sum(bool(silent_ranks(life, now, soon_s)) for life in heard)
        return 2 * silent > len(heard)

    def _do(self, decision: Decision) -> None:
        for start in decision.starts:
            self.conductor.start(start)
        for step in decision.steps:
            commit(self.fleet, step)
        if decision.growth is not None:
            self.conductor.grow(decision.growth)

    def _observed(self, request: Request) -> bool:
        """Whether what this effect is for has been seen."""
        life = self.fleet.picture.lives.get(request.life)
        if life is None:
            return True
        state = life.record.state
        if request.effect is Effect.RESERVE:
            return state is not SliceState.PENDING
        if request.effect is Effect.ASSEMBLE:
            return state is not SliceState.PLACED
        if isinstance(request, Launch):
            return life.record.run_id != request.attempt.key or _over(life, request.attempt.key)
        if isinstance(request, Stop):
            return life.record.run_id != request.attempt_key or _over(life, request.attempt_key)
        if isinstance(request, Notify):
            key = request.attempt_key
            return life.view.told == (key, request.deadline_epoch_s) or life.record.run_id != key or _over(life, key)
        return False


_UNMADE = frozenset({SliceState.PENDING, SliceState.PLACED})
_HEARD = frozenset({SliceState.PLACED, SliceState.READY, SliceState.RUNNING})


def _over(life: Life, attempt: str | None) -> bool:
    view = life.view
    return all(host.gone == attempt and (attempt, rank) in view.outcomes for rank, host in enumerate(view.hosts))


def _copy(life: Life) -> Life:
    """Return a copy whose record may be changed; the view is shared and only read."""
    twin = copy.copy(life)
    twin.record = copy.copy(life.record)
    twin.record.hosts = tuple(copy.copy(host) for host in life.record.hosts)
    return twin


def _assume(fleet: Fleet, life: Life, step: Step) -> None:
    """Move a copied record as the commit of the step would, without its books."""
    if step.trigger is None:
        return
    record = life.record if step.rank is None else life.record.hosts[step.rank]
    table = fleet.slices.table if step.rank is None else fleet.hosts.table
    row = table.row(record.state, step.trigger)  # type: ignore[arg-type]
    if row is not None:
        record.state = row.dest
        record.reason = step.reason
        if step.trigger is SliceTrigger.PREEMPT:
            life.record.lost = step.reason is not Reason.PREEMPTION_NOTICE
