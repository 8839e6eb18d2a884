"""The reconcile loop: observe, orders, sync, plan, commit, act, publish.

One thread writes all records, here. A tick never waits: what has to wait is asked of the backend, and its outcome comes
back through the inbox.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from sliceform.controller.model.backend import Backend
from sliceform.controller.model.clock import Clock
from sliceform.controller.model.effects import EffectRequest
from sliceform.controller.model.events import Event
from sliceform.controller.model.orders import Submit
from sliceform.controller.reconcile.act import achieved
from sliceform.controller.reconcile.commit import commit
from sliceform.controller.reconcile.conduct import Conductor
from sliceform.controller.reconcile.decide.life import Life
from sliceform.controller.reconcile.decide.plan import plan
from sliceform.controller.reconcile.decide.policy import Vacancy
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.decide.step import Decision, Step
from sliceform.controller.reconcile.decide.sync import FOREVER, due, silent_ranks, sync
from sliceform.controller.reconcile.inbox import Inbox
from sliceform.controller.reconcile.inputs import Beat, Inputs
from sliceform.controller.reconcile.inquiry import Inquiry
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.obey import obey
from sliceform.controller.reconcile.observe import Observer
from sliceform.controller.reconcile.place_status import FleetPlaces, places_now
from sliceform.controller.reconcile.publish import StatusBoard
from sliceform.controller.reconcile.reservations import Reservations
from sliceform.controller.reconcile.status import FleetStatus
from sliceform.controller.reconcile.witness import Ticked, Witness
from sliceform.states.reasons import Reason
from sliceform.states.slices import SliceState, SliceTrigger

#: Facts of one life lead to further facts of it at most so often within a tick.
_MAX_PASSES = 8
#: Ticks whose duration is kept for whoever measures them.
_TICKS_KEPT = 4_096


class Reconciler:
    """Brings what exists to what is desired, one tick at a time."""

    def __init__(
        self,
        ledger: Ledger,
        backend: Backend,
        clock: Clock,
        *,
        label: str,
        seed: int,
        run_of: Callable[[Submit], RunRecord] = RunRecord.of,
        record: Callable[[Ticked], None] | None = None,
    ) -> None:
        """Take what it works on; nothing happens before the first tick.

        Args:
            ledger: all that it writes.
            backend: where effects are submitted.
            clock: both times, read once a tick.
            label: of the fleet.
            seed: of the jitter of delays.
            run_of: gives the record of a run that is submitted.
            record: told of every tick, if they are to be written down; only stores.

        """
        self.ledger = ledger
        self.inbox = Inbox()
        self.conductor = Conductor(ledger, seed)
        self.backend = backend
        self.board = StatusBoard(ledger, label)
        self._clock = clock
        self._run_of = run_of
        self._record = record
        self._inquiry = Inquiry()
        #: When it begins, by the monotonic clock, seconds.
        self.begun_at = clock.monotonic()
        self._observer = Observer(ledger, self.conductor, self._inquiry, self.begun_at)
        self._reservations = Reservations(ledger)
        self._ticks: deque[float] = deque(maxlen=_TICKS_KEPT)

    # What the backend calls, on any thread.

    def post(self, event: Event) -> None:
        """Take an event."""
        self.inbox.post(event)

    def beat(self, slice_id: str, rank: int, *, raylet_ok: bool = True) -> None:
        """Note that an agent was heard, and whether its node's daemon is well; wakes nobody."""
        if self._record is None:
            self._observer.hear(slice_id, rank, raylet_ok)
        else:
            # It is to be known which tick took it.
            self.inbox.beat(Beat(slice_id, rank, raylet_ok))

    # One tick.

    def tick(self) -> float:
        """Do everything that is to be done now; return after how many seconds to tick again at the latest."""
        # Not the injected clock: this is what the machine needs, and a simulated time stands still meanwhile.
        begun = time.perf_counter()
        try:
            self.backend.poll()
            inputs = self.inbox.take(self._clock.monotonic(), self._clock.epoch())
            if self._record is None:
                return self.step(inputs, self.backend.submit)
            return self.witness(inputs, self._record)
        finally:
            self._ticks.append(time.perf_counter() - begun)

    def step(self, inputs: Inputs, submit: Callable[[EffectRequest], None]) -> float:
        """Do what a tick with these inputs does: the same fleet with the same inputs does the same.

        Returns:
            After how many seconds to tick again at the latest.

        """
        ledger, fleet = self.ledger, self.ledger.fleet
        ledger.tick += 1
        # 1. Observe: what came in changes what is known.
        self._observer.take(inputs)
        # 2. Orders, and questions about what is known now.
        for order in inputs.orders:
            obey(ledger, self.conductor, order, self._run_of)
        for question in self.inbox.questions():
            question()
        # 3. Sync: facts of slices and attempts.
        self._reservations.follow(nodes_changed=self._observer.nodes_changed())
        next_due = self._sync()
        look, ended = self.conductor.oversee()
        if ended:
            # Slices whose attempt has just been found over are free at once, for the next run or attempt.
            next_due = self._sync()
        # 4. Plan, and 5. commit.
        decision = plan(fleet)
        self._do(decision)
        # 6. Act: submit what is due, and ask.
        act_due = ledger.outbox.flush(fleet.now, submit, partial(achieved, fleet.lives))
        while ledger.released:
            # Nothing is asked of these any more.
            self.backend.forget(ledger.released.pop())
        self._inquiry.ask(fleet, self.backend)
        # 7. Publish.
        self.board.publish()
        next_due = min(next_due, look, decision.due, self._reservations.due(), act_due)
        return max(0.0, min(ledger.settings.resync_s, next_due - fleet.now))

    def witness(self, inputs: Inputs, report: Callable[[Ticked], None]) -> float:
        """Do a step, and report what it took and did, also if it raises."""
        witness = Witness(self.ledger, inputs, self.backend.submit)
        try:
            return self.step(witness.inputs, witness.submit)
        except Exception as error:
            witness.error = type(error).__name__
            raise
        finally:
            report(witness.told())

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
        return places_now(self.ledger)

    def preview(self) -> tuple[Step, ...]:
        """Return what the next tick would commit, as far as it is known now, without doing any of it."""
        ledger = self.ledger
        lives = {name: _copy(life) for name, life in ledger.fleet.lives.items()}
        limits = ledger.limits(silence_held=self._silence_held(lives.values(), lives.values()))
        fleet = copy.copy(ledger.fleet)
        fleet.lives = lives
        fleet.vacancies = list(fleet.vacancies)
        fleet.surveyed = True  # the next tick may be the one that sees the node table first
        facts: list[Step] = []
        for life in lives.values():
            steps = sync(life, fleet.now, limits)
            facts += steps
            for step in steps:
                _assume(ledger, life, step)
                if step.rank is None and step.trigger in {SliceTrigger.PREEMPT, SliceTrigger.EXPIRE}:
                    lost = step.trigger is SliceTrigger.PREEMPT
                    fleet.vacancies.append(Vacancy.of(step.slice_id, life.vacancy, lost=lost))
        return (*facts, *plan(fleet).steps)

    def _sync(self) -> float:
        """Commit the facts; return the loop time at which time alone may bring more."""
        ledger, fleet = self.ledger, self.ledger.fleet
        now = fleet.now
        stale = [life for life in fleet.lives.values() if life.due <= now or life.synced != life.version]
        limits = ledger.limits(silence_held=self._silence_held(stale, fleet.lives.values()))
        for _ in range(_MAX_PASSES):
            if not stale:
                break
            moved = []
            for life in stale:
                steps = sync(life, now, limits)
                life.synced = life.version
                for step in steps:
                    commit(ledger, step)
                if steps:
                    moved.append(life)
                life.due = due(life, limits)
                if life.due <= now:
                    life.due = now + ledger.settings.resync_s
            stale = [life for life in moved if life.record.state is not None]
        return min((life.due for life in fleet.lives.values()), default=FOREVER)

    def _silence_held(self, looked_at: Iterable[Life], lives: Iterable[Life]) -> bool:
        """Whether so many slices fell silent together that it is more likely us who cannot hear.

        Slices cut off at the same moment fall silent up to a beat apart, so those about to do so count, too. Whom it
        concerns is asked first: all others need not be counted when none of those `looked_at` is silent.
        """
        settings = self.ledger.settings
        now = self.ledger.fleet.now
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
            commit(self.ledger, step)
        if decision.growth is not None:
            self.conductor.grow(decision.growth)
        for end in decision.ends:
            self.conductor.end(end)
        self.ledger.fleet.pause = decision.pause
        self.ledger.fleet.vacancies = list(decision.vacancies)


_HEARD = frozenset({SliceState.PLACED, SliceState.READY, SliceState.RUNNING})


def _copy(life: Life) -> Life:
    """Return a copy whose record may be changed; the view is shared and only read."""
    twin = copy.copy(life)
    twin.record = copy.copy(life.record)
    twin.record.hosts = tuple(copy.copy(host) for host in life.record.hosts)
    return twin


def _assume(ledger: Ledger, life: Life, step: Step) -> None:
    """Move a copied record as the commit of the step would, without its books."""
    if step.trigger is None:
        return
    record = life.record if step.rank is None else life.record.hosts[step.rank]
    table = ledger.slices.table if step.rank is None else ledger.hosts.table
    row = table.row(record.state, step.trigger)  # type: ignore[arg-type]
    if row is not None:
        record.state = row.dest
        record.reason = step.reason
        if step.trigger is SliceTrigger.PREEMPT:
            life.record.lost = step.reason is not Reason.PREEMPTION_NOTICE
