"""The reconcile loop: observe, orders, sync, plan, commit, act, publish.

One thread writes all records, here. A tick never waits: what has to wait is asked of the backend, and its outcome comes
back through the inbox.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial

from sliceform.controller.model.backend import Backend
from sliceform.controller.model.clock import Clock
from sliceform.controller.model.effects import EffectRequest
from sliceform.controller.model.events import Event
from sliceform.controller.model.orders import Submit
from sliceform.controller.model.status import FleetStatus
from sliceform.controller.reconcile.act import achieved
from sliceform.controller.reconcile.converge import converge
from sliceform.controller.reconcile.decide.run import RunRecord
from sliceform.controller.reconcile.decide.step import Step, WorkStep
from sliceform.controller.reconcile.inbox import Inbox
from sliceform.controller.reconcile.inputs import Beat, Inputs
from sliceform.controller.reconcile.inquiry import Inquiry
from sliceform.controller.reconcile.ledger import Ledger
from sliceform.controller.reconcile.obey import obey
from sliceform.controller.reconcile.observe import Observer
from sliceform.controller.reconcile.place_status import FleetPlaces, places_now
from sliceform.controller.reconcile.publish import StatusBoard
from sliceform.controller.reconcile.reservations import Reservations
from sliceform.controller.reconcile.twin import preview
from sliceform.controller.reconcile.witness import Ticked, Witness

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
        run_of: Callable[[Submit], RunRecord] = RunRecord.of,
        record: Callable[[Ticked], None] | None = None,
    ) -> None:
        """Take what it works on; nothing happens before the first tick.

        Args:
            ledger: all that it writes.
            backend: where effects are submitted.
            clock: both times, read once a tick.
            label: of the fleet.
            run_of: gives the record of a run that is submitted.
            record: told of every tick, if they are to be written down; only stores.

        """
        self.ledger = ledger
        self.inbox = Inbox()
        self.backend = backend
        self.board = StatusBoard(ledger, label)
        self._clock = clock
        self._run_of = run_of
        self._record = record
        self._inquiry = Inquiry()
        #: When it begins, by the monotonic clock, seconds.
        self.begun_at = clock.monotonic()
        self._observer = Observer(ledger, self._inquiry, self.begun_at)
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
            obey(ledger, order, self._run_of)
        for question in self.inbox.questions():
            question()
        self._reservations.follow(nodes_changed=self._observer.nodes_changed())
        # 3. Sync: facts, 4. plan: commands, and 5. commit.
        next_due = converge(ledger)
        # 6. Act: submit what is due, and ask.
        act_due = ledger.outbox.flush(fleet.now, submit, partial(achieved, fleet.lives))
        while ledger.released:
            # Nothing is asked of these any more.
            self.backend.forget(ledger.released.pop())
        self._inquiry.ask(fleet, self.backend)
        # 7. Publish.
        self.board.publish()
        next_due = min(next_due, self._reservations.due(), act_due)
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

    def preview(self) -> tuple[Step | WorkStep, ...]:
        """Return what the next tick would commit, as far as it is known now, without doing any of it."""
        return preview(self.ledger)
