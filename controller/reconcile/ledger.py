"""Everything the loop's thread owns and a commit writes: fleet, engines, history and outbox."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.model.sizes import Desired
from sliceform.controller.reconcile.act import Outbox
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import Limits
from sliceform.controller.reconcile.decide.place_map import Outlook, PlaceMap
from sliceform.controller.reconcile.decide.policy import Backoff, Places
from sliceform.controller.reconcile.decide.run import Attempt, RunRecord
from sliceform.states import TABLES, AttemptRecord, History, HostEnd
from sliceform.states.machine import Engine
from sliceform.states.reasons import Reason
from sliceform.states.records import HostRecord, SliceRecord
from sliceform.states.table import Row

#: Everything that a table moves, with the name of its table.
Record = SliceRecord | HostRecord | RunRecord | Attempt
_KINDS = {SliceRecord: "slice", HostRecord: "host", RunRecord: "run", Attempt: "attempt"}


@dataclass(slots=True)
class Ledger:
    """The fleet as the controller knows it; touched by one thread only, but for `history` and `published`."""

    shape: SliceShape
    settings: Settings
    fleet: Fleet
    history: History
    outbox: Outbox
    #: By the name of the table that each drives.
    engines: Mapping[str, Engine[Any, Any]]
    #: What the node table says of every place.
    place_map: PlaceMap
    #: Number of the tick that is under way: the correlation id of all it changes.
    tick: int = 0
    #: Who uses which node: (slice id, host rank or None for the head group's node).
    users: dict[str, set[tuple[str, int | None]]] = field(default_factory=dict)
    #: Nodes in use that the node table has not shown yet, and whether it was read since they are.
    unseen: dict[str, bool] = field(default_factory=dict)
    #: Lives that were released in this tick, of which the backend may drop everything.
    released: list[str] = field(default_factory=list)
    #: Nodes that are left of every kind of accelerator, as counted in a tick; see `kinds`.
    room: tuple[int, Counter[str]] = (-1, Counter())
    #: Attempts by key, as long as they go on.
    attempts: dict[str, Attempt] = field(default_factory=dict)
    #: Told after every tick.
    published: threading.Condition = field(default_factory=threading.Condition)

    @classmethod
    def begin(cls, shape: SliceShape, desired: Desired, settings: Settings, history: History, seed: int) -> Ledger:
        """Return an empty fleet; `seed` is for the jitter of delays."""
        rng = random.Random(seed)
        fleet = Fleet(
            settings=settings,
            desired=desired,
            lives={},
            runs=[],
            places=Places(settings),
            backoff=Backoff(settings.backoff_initial_s, settings.backoff_max_s, rng),
            hosts=shape.hosts,
            blind="not observed yet",
        )
        outbox = Outbox(backoff_initial_s=settings.backoff_initial_s, backoff_max_s=settings.backoff_max_s, rng=rng)
        return cls(shape, settings, fleet, history, outbox, engines_of(history), PlaceMap(shape))

    @property
    def outlook(self) -> Outlook:
        """Where reservations may go now."""
        return self.place_map.outlook(self.fleet.places.names())

    def limits(self, *, silence_held: bool = False) -> Limits:
        """Return what `sync` needs to know now."""
        settings, outlook = self.settings, self.outlook
        return Limits(
            pending_s=settings.pending_s,
            placed_s=settings.placed_s,
            silence_s=settings.effective_silence_s,
            stuck_s=settings.release_stuck_s,
            devices=self.shape.devices_per_host.count,
            avoid=self.fleet.places.names(),
            barred=outlook.barred,
            owners=self.place_map.owners,
            kinds=outlook.kind_of,
            silence_held=silence_held,
        )

    def run(self, run_id: str) -> RunRecord:
        """Return a run that is not over."""
        return next(run for run in self.fleet.runs if run.id == run_id)

    def move(
        self, record: Record, trigger: StrEnum, reason: Reason, detail: str = "", cause: str | None = None
    ) -> Row[Any, Any]:
        """Move a record through its table, write it into the history, and return the row.

        Raises:
            InvalidTransition: the table has no such row; nothing has changed.

        """
        return self.engines[_KINDS[type(record)]].fire(
            record,
            trigger,
            now=self.fleet.now,
            at=self.fleet.epoch,
            tick=self.tick,
            reason=reason,
            detail=detail,
            cause=cause,
        )

    def note(self, record: Record, reason: Reason, detail: str, cause: str | None = None) -> None:
        """Write something about a record into the history that does not move it."""
        engine = self.engines[_KINDS[type(record)]]
        engine.note(record, at=self.fleet.epoch, tick=self.tick, reason=reason, detail=detail, cause=cause)

    def note_fleet(self, reason: Reason, detail: str) -> None:
        """Write something about the fleet as a whole into the history."""
        self.history.append(
            tick=self.tick,
            at=self.fleet.epoch,
            kind="fleet",
            key="fleet",
            trigger=None,
            source=None,
            dest=None,
            reason=reason.value,
            detail=detail,
        )

    def record_attempt(self, attempt: Attempt) -> None:
        """Write an attempt into the history as it stands."""
        spec = attempt.spec
        names = [f"{life}/{rank}" for life in spec.members for rank in range(spec.hosts_per_slice)]
        hosts = []
        for rank, (name, (node, _)) in enumerate(zip(names, attempt.nodes, strict=True)):
            outcome = attempt.outcomes.get(divmod(rank, spec.hosts_per_slice))
            kind, detail = (str(outcome.kind), outcome.detail) if outcome else (None, "")
            hosts.append(HostEnd(name, node, kind, detail))
        self.history.attempts.record(
            AttemptRecord(
                spec.run_id,
                spec.number,
                spec.members,
                tuple(hosts),
                attempt.started_epoch_s,
                attempt.ended_epoch_s,
                None if attempt.ended is None else str(attempt.ended),
                attempt.why_ended,
            )
        )


def engines_of(history: History) -> Mapping[str, Engine[Any, Any]]:
    """Return an engine for every table, all of which write into this history."""
    return {kind: Engine(table, history) for kind, table in TABLES.items()}
