"""Whatever happens to a fleet, the invariants hold; and once it stops happening, the fleet converges.

A machine of hypothesis throws everything at a controller on a simulated cluster: people who scale and drain, hosts
that die, freeze and get notice, answers that come late, twice or never, and a node table that cannot be read.
"""

import os
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sliceform.controller.api.controller import SliceController
from sliceform.controller.api.run import Run
from sliceform.controller.model.backend import Backend
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import GpuSlice, SliceShape, TpuSlice
from sliceform.controller.reconcile.prospects import Prospects
from sliceform.controller.reconcile.rows import RunRows, slice_status
from sliceform.controller.report.replay import replay_record
from sliceform.controller.testing import FakeClock, FaultyBackend, SimBackend
from sliceform.states import Change, Reason, replay

from .invariants import SETTINGS, TIMINGS, wrong

#: Once faults have stopped, the fleet has converged after at most so many ticks, one a second. The longest wait is for
#: an answer that was lost: what is asked for again every 30 s at first, and every 300 s after some tries.
TICKS_TO_CONVERGE = 900

#: By default the same examples every time; `SLICEFORM_TEST_EXAMPLES=5000` looks for new ones.
SEARCH = int(os.environ.get("SLICEFORM_TEST_EXAMPLES", "0"))
EXAMPLES = SEARCH or 250

FROZEN_DEATH_S = 25.0

chances = st.sampled_from([0.0, 0.1, 0.4])
picks = st.integers(min_value=0, max_value=100)
spans = st.sampled_from([0.1, 0.5, 1.0, 1.0, 2.0])
sizes = st.one_of(
    st.integers(1, 4),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda values: sorted(set(values))),
)


class Port:
    """A backend whose calls are counted, by method and what they are about."""

    #: Of all examples together.
    every: ClassVar[Counter[str]] = Counter()

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.calls: Counter[tuple[str, str]] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def counted(*args: Any) -> Any:
            about = getattr(args[0], "slice_id", args[0]) if args else ""
            self.calls[name, about if isinstance(about, str) else ""] += 1
            self.every[name] += 1
            return method(*args)

        return counted

    def about(self, name: str) -> set[str]:
        """Return the slices that a method was called for."""
        return {about for method, about in self.calls if method == name}


class FleetMachine(RuleBasedStateMachine):
    """One fleet, one cluster, and everything that can happen to them."""

    shape: SliceShape = TpuSlice("v4-16")
    record: Path | None = None

    @initialize(seed=st.integers(0, 1_000_000), wanted=sizes, spares=st.integers(0, 1), places=st.integers(1, 4))
    def begin(self, seed: int, wanted: Any, spares: int, places: int) -> None:
        self.clock = FakeClock()
        self.sim = SimBackend(self.shape, places, clock=self.clock, seed=seed, frozen_death_s=FROZEN_DEATH_S, **TIMINGS)
        self.faulty = FaultyBackend(self.sim, seed)
        self.port = Port(self.faulty)
        self.fleet = SliceController(
            self.shape,
            wanted,
            spares=spares,
            settings=Settings(**SETTINGS),
            backend=self.port,
            clock=self.clock,
            record=self.record,
        )
        self.runs: list[Run] = []
        self.sound = False
        self.all_are_heard = True
        self.torn: set[str] = set()
        self.checked = 0
        self.states: dict[str, str] = {}
        self.tick()

    # Time.

    @rule(span=spans, ticks=st.integers(1, 8))
    def time_passes(self, span: float, ticks: int) -> None:
        for _ in range(ticks):
            self.clock.advance(span)
            self.tick()

    @rule(seconds=st.sampled_from([15.0, 60.0, 600.0]))
    def the_driver_is_paused(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.tick()

    # People.

    @rule(wanted=sizes, spares=st.integers(0, 2))
    def scale(self, wanted: Any, spares: int) -> None:
        self.fleet.scale(wanted, spares)
        self.tick()

    @rule(pick=picks, deadline_s=st.sampled_from([0.0, 3.0, None]))
    def drain(self, pick: int, deadline_s: float | None) -> None:
        rows = self.fleet.status().slices
        if rows:
            self.fleet.drain(rows[pick % len(rows)].id, deadline_s)
            self.tick()

    @rule(fails=st.booleans(), budget=st.integers(0, 3), wanted=st.sampled_from([None, 1, [1, 2], [1, 2, 4]]))
    def submit(self, fails: bool, budget: int, wanted: Any) -> None:  # noqa: FBT001 - called by hypothesis
        run = self.fleet.options(slices=wanted, max_preemptions=budget, max_failures=budget)
        self.runs.append(run.submit(divmod, 1, int(not fails)))
        self.tick()

    @rule()
    def somebody_asks_why(self) -> None:
        assert str(self.fleet.why())

    @precondition(lambda self: self.runs)
    @rule(pick=picks, grace_s=st.sampled_from([0.0, 2.0]))
    def cancel(self, pick: int, grace_s: float) -> None:
        self.runs[pick % len(self.runs)].cancel(grace_s)
        self.tick()

    # The cluster.

    @rule()
    def a_slice_joins(self) -> None:
        if len(self.sim.places) < 6:
            self.sim.add_slice()
            self.tick()

    @rule(pick=picks, what=st.sampled_from(["kill_host", "kill_agent", "freeze_host", "thaw_host"]))
    def a_host_goes_or_comes(self, pick: int, what: str) -> None:
        self.all_are_heard = self.all_are_heard and what != "freeze_host"
        getattr(self.sim, what)(*self.host(pick))
        self.tick()

    @rule(pick=picks)
    def only_the_daemon_freezes(self, pick: int) -> None:
        self.all_are_heard = False
        self.sim.freeze_host(*self.host(pick), daemon_only=True)
        self.tick()

    @rule(pick=picks, what=st.sampled_from(["remove_slice", "restore_slice", "hold", "let_go"]))
    def a_place_goes_or_comes(self, pick: int, what: str) -> None:
        getattr(self.sim, what)(self.host(pick)[0])
        self.tick()

    @rule(pick=picks, deadline_s=st.sampled_from([None, 2.0, 30.0]), source=st.sampled_from(["gce", "own"]))
    def a_host_is_given_notice(self, pick: int, deadline_s: float | None, source: str) -> None:
        self.sim.notice(*self.host(pick), deadline_in_s=deadline_s, source=source)
        self.tick()

    @rule(pick=picks, source=st.sampled_from(["gce", "own"]))
    def a_notice_is_withdrawn(self, pick: int, source: str) -> None:
        self.sim.withdraw_notice(*self.host(pick), source=source)
        self.tick()

    @rule(pick=picks, on=st.booleans())
    def a_node_is_to_be_drained(self, pick: int, on: bool) -> None:  # noqa: FBT001 - see above
        self.sim.drain_node(*self.host(pick), deadline_in_s=10.0, on=on)
        self.tick()

    @rule(pick=picks, devices=st.sampled_from([3, 4]), detail=st.sampled_from([None, "no disk space"]))
    def a_host_is_unfit_or_mended(self, pick: int, devices: int, detail: str | None) -> None:
        self.sim.set_devices(*self.host(pick), devices)
        self.sim.break_agent(*self.host(pick), detail)

    @rule(pick=picks)
    def a_bundle_moves(self, pick: int) -> None:
        place, worker_id = self.host(pick)
        node = self.sim.node_id(place, worker_id)
        if not self.faulty.faults.lose:
            rows = [row for row in self.fleet.status().slices if row.state in {"ready", "running"}]
            self.torn |= {row.id for row in rows if node in {host.node_id for host in row.hosts}}
        self.sim.move_bundle(place, worker_id)
        self.tick()

    # What is between them.

    @rule(
        answers=st.fixed_dictionaries({"lose": chances, "delay": chances, "repeat": chances}),
        requests=st.fixed_dictionaries(
            {"refuse": chances, "refuse_but_do": chances, "drop_request": chances, "repeat_request": chances}
        ),
        others=st.fixed_dictionaries({"refuse_place": chances, "fail_observation": chances, "lose_beat": chances}),
    )
    def messages_go_astray(self, answers: Any, requests: Any, others: Any) -> None:
        self.faulty.inject(**answers, **requests, **others)
        faults = self.faulty.faults
        if faults.lose or faults.delay or faults.lose_beat:
            self.all_are_heard = False

    @rule()
    def messages_arrive_again(self) -> None:
        self.faulty.heal()

    @rule(on=st.booleans())
    def the_node_table_cannot_be_read(self, on: bool) -> None:  # noqa: FBT001 - see above
        self.sim.fail_observation(on)
        self.tick()

    # What must always hold.

    def check(self, changes: tuple[Change, ...]) -> None:
        """See that the invariants hold after a tick that made these changes."""
        assert list(wrong(self.fleet, changes, exclusive_nodes=self.shape.exclusive_nodes)) == []
        if self.all_are_heard:
            assert [change for change in changes if change.reason == Reason.SILENT] == []
        assert replay(changes, self.states) == ()
        self.states.update({c.key: c.dest for c in changes if c.trigger and c.dest})
        for change in changes:
            if change.trigger and change.dest is None:
                del self.states[change.key]
        ledger, status = self.fleet._ledger, self.fleet.status()
        # What is kept of the status from tick to tick is what would be made anew.
        assert status.slices == tuple(map(slice_status, ledger.fleet.lives.values()))
        rows = RunRows().rows(ledger.fleet.runs, Prospects(ledger), ledger.history.last_seq, ledger.fleet.now)
        assert status.runs[len(status.runs) - len(rows) :] == rows
        held = [node for holding in self.sim.audit().values() for node in holding.nodes]
        assert len(held) == len(set(held)), self.sim.audit()

    def teardown(self) -> None:
        if not hasattr(self, "fleet"):
            return
        try:
            self.all_is_mended()
            self.what_cannot_start_is_given_up()
            if self.sound:
                self.it_converges()
        finally:
            self.fleet.close()
        if self.sound:
            self.it_left_nothing()

    def what_cannot_start_is_given_up(self) -> None:
        """Sizes are fixed at submission: of a run that is too large for what is wanted now, its owner has to decide."""
        largest = self.fleet._desired.largest
        for run in self.runs:
            if not run.done() and run.record.sizes and run.record.sizes[0] > largest:
                run.cancel()

    def it_left_nothing(self) -> None:
        assert self.sim.left_at_close == {}
        assert replay(self.fleet.history) == ()

    def it_converges(self) -> None:
        for _ in range(TICKS_TO_CONVERGE):
            self.clock.advance(1.0)
            self.tick()
            if self.converged():
                break
        assert self.converged(), self.report()
        assert self.fleet.plan() == ()
        assert not self.torn & {row.id for row in self.fleet.status().slices}
        seq = self.fleet.history.last_seq
        for _ in range(5):
            self.clock.advance(1.0)
            self.tick()
        assert self.fleet.history.last_seq == seq
        self.nothing_is_kept_of_what_is_gone()
        result = self.fleet.submit(divmod, 7, 2).result(timeout_s=60.0)
        assert (
            result.values
            == [(3, 1)] * (len(self.fleet.status().slices) - self.fleet.status().spares) * self.shape.hosts
        )

    def nothing_is_kept_of_what_is_gone(self) -> None:
        """At rest, whatever is kept belongs to a slice that is there."""
        there = {row.id for row in self.fleet.status().slices}
        ledger = self.fleet._ledger
        assert set(self.sim.kept) == there
        assert self.port.about("submit") - self.port.about("forget") == there
        assert {count for (method, _), count in self.port.calls.items() if method in {"open", "forget"}} <= {1}
        assert set(ledger.fleet.lives) == there
        assert {life for users in ledger.users.values() for life, _ in users} == there
        assert (len(ledger.outbox), ledger.attempts, ledger.fleet.runs) == (0, {}, [])
        assert (ledger.fleet.vacancies, self.fleet._runs) == ([], {})

    # Inside.

    def tick(self) -> None:
        """Do one tick and check it."""
        self.sound = False
        self.fleet.step()
        changes = self.fleet.history.since(self.checked)
        self.checked = self.fleet.history.last_seq
        self.check(changes)
        self.sound = True

    def host(self, pick: int) -> tuple[str, int]:
        places = self.sim.places
        return places[pick % len(places)], (pick // len(places)) % self.shape.hosts

    def report(self) -> str:
        """Say what is missing for the fleet to have converged."""
        outbox = [item.request for item in self.fleet._ledger.outbox._items.values()]
        held = self.sim.audit()
        return f"{self.fleet.status()}\n{self.fleet.why()}\nin flight: {outbox}\nheld: {held}"

    def all_is_mended(self) -> None:
        self.faulty.heal()
        self.sim.mend()
        status = self.fleet.status()
        while len(self.sim.places) < status.sizes[-1] + status.spares:
            self.sim.add_slice()

    def converged(self) -> bool:
        status = self.fleet.status()
        target = status.sizes[-1] + status.spares
        return (
            self.faulty.pending == 0
            and len(status.slices) == target
            and status.counts == {"ready": target}
            and all(run.state not in {"waiting", "running"} for run in status.runs)
            and status.effects_in_flight == 0
        )


class GpuFleetMachine(FleetMachine):
    """The same with GPU hosts, which are reserved at once and avoided node by node."""

    shape = GpuSlice(2, 4)


class RecordedFleetMachine(FleetMachine):
    """The same with a record, which is replayed in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.record = Path(self.folder.name) / "fleet.record"

    def teardown(self) -> None:
        with self.folder:
            super().teardown()
            (replayed,) = replay_record(self.record)
            assert replayed.difference is None, str(replayed.difference)
            assert replayed.ticks == self.fleet._ledger.tick


@pytest.fixture(autouse=True)
def the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller draws its jitter from its own random name."""
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=1))


@pytest.mark.parametrize("machine", [FleetMachine, GpuFleetMachine])
def test_a_fleet_converges_whatever_happened(machine: Callable[[], FleetMachine]) -> None:
    throw_everything_at(machine, EXAMPLES)


def test_a_record_of_whatever_happened_is_replayed_to_the_same_decisions() -> None:
    throw_everything_at(RecordedFleetMachine, SEARCH or 40)


def throw_everything_at(machine: Callable[[], FleetMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=not SEARCH,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    # What nobody ever asks of a backend does not belong into its port.
    assert {name for name in vars(Backend) if not name.startswith("_")} == set(Port.every)


def test_convergence_is_not_for_want_of_trying() -> None:
    """The machine's own parts work: a fleet that nobody disturbs is there after a few ticks."""
    machine = FleetMachine()
    machine.begin(0, [2, 4], 1, 5)
    for _ in range(6):
        machine.clock.advance(1.0)
        machine.tick()
    assert machine.converged()
    with pytest.raises(ValueError, match="slices"):
        machine.fleet.scale(0)
    machine.teardown()
