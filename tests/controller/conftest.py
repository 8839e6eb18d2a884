"""What tests of the controller share: a quiet log, a fleet on a simulated cluster, and fleets drawn at random."""

import logging
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import structlog

from sliceform.controller.api.controller import SliceController
from sliceform.controller.api.run import Run
from sliceform.controller.model.events import Outcome, OutcomeKind
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import SliceShape, TpuSlice
from sliceform.controller.model.sizes import Desired, parse_sizes
from sliceform.controller.model.status import SliceStatus
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import HostView, Life, Loss, SliceView
from sliceform.controller.reconcile.decide.policy import Backoff, Pause, Places, Vacancy
from sliceform.controller.reconcile.decide.run import RunOptions, RunRecord
from sliceform.controller.testing import FakeClock, FaultyBackend, SimBackend
from sliceform.states import Change
from sliceform.states.hosts import HostState
from sliceform.states.reasons import Reason
from sliceform.states.records import HostRecord, SliceRecord
from sliceform.states.slices import SliceState

# The same examples every time, however busy the machine is.
hypothesis.settings.register_profile(
    "controller", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("controller")


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Simulated ticks would write a line for each change."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller draws its jitter from its own random name."""
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=1))


class SimFleet:
    """A controller on a simulated cluster, driven step by step."""

    def __init__(
        self,
        wanted: Any = 1,
        places: Any = 2,
        *,
        shape: SliceShape | None = None,
        spares: int = 0,
        settings: dict[str, Any] | None = None,
        **timings: float,
    ) -> None:
        self.shape = shape or TpuSlice("v4-16")
        self.clock = FakeClock()
        self.sim = SimBackend(self.shape, places, clock=self.clock, **timings)
        self.faulty = FaultyBackend(self.sim)
        self.fleet = SliceController(
            self.shape,
            wanted,
            spares=spares,
            settings=Settings(**(settings or {})),
            backend=self.faulty,
            clock=self.clock,
        )

    @property
    def known(self) -> Fleet:
        return self.fleet._ledger.fleet

    @property
    def history(self) -> tuple[Change, ...]:
        return tuple(self.fleet.history)

    def step(self, seconds: float = 0.25) -> None:
        self.clock.advance(seconds)
        self.fleet.step()

    def go(self, seconds: float, every: float = 0.25) -> None:
        for _ in range(round(seconds / every)):
            self.step(every)

    def until(self, done: Callable[[], bool], within_s: float = 60.0) -> None:
        for _ in range(round(within_s / 0.25)):
            if done():
                return
            self.step()
        assert done(), str(self.fleet.status())

    def ready(self, count: int | None = None) -> "SimFleet":
        wanted = self.fleet._desired.target if count is None else count
        self.until(lambda: self.fleet.status().ready == wanted)
        return self

    def rows(self, state: str | None = None) -> list[SliceStatus]:
        return [row for row in self.fleet.status().slices if state is None or row.state == state]

    def row(self, slice_id: str) -> SliceStatus:
        return next(row for row in self.rows() if row.id == slice_id)

    def ids(self, state: str | None = None) -> list[str]:
        return [row.id for row in self.rows(state)]

    def place(self, slice_id: str) -> str:
        place = self.row(slice_id).place
        assert place is not None
        return place

    def changes(self, trigger: str | None, key: str | None = None) -> list[Change]:
        return [c for c in self.history if c.trigger == trigger and c.kind == "slice" and key in {None, c.key}]

    def notes(self, reason: Reason) -> list[Change]:
        return [c for c in self.told(reason) if c.trigger is None]

    def told(self, reason: Reason) -> list[Change]:
        return [c for c in self.history if c.reason == reason]

    def over(self, run: Run, within_s: float = 120.0) -> Run:
        self.until(run.done, within_s)
        return run


@pytest.fixture
def sim_fleet() -> Iterator[Callable[..., SimFleet]]:
    made: list[SimFleet] = []

    def make(*args: Any, **kwargs: Any) -> SimFleet:
        made.append(SimFleet(*args, **kwargs))
        return made[-1]

    yield make
    for world in made:
        world.fleet.close(grace_s=0.0)
        assert world.sim.left_at_close == {}


# Fleets drawn at random.

HOSTS = 2
ATTEMPT = "run-1/1"
#: States that a host may have in a slice of that state.
HOST_STATES = {
    SliceState.PENDING: [HostState.PENDING],
    SliceState.PLACED: [HostState.PENDING, HostState.PLACED, HostState.READY],
    SliceState.READY: [HostState.READY],
    SliceState.RUNNING: [HostState.READY, HostState.RUNNING],
    SliceState.PREEMPTED: [HostState.PREEMPTED],
    SliceState.DRAINING: [HostState.PENDING, HostState.READY, HostState.PREEMPTED, HostState.DRAINING],
}
LOSSES = [Reason.NODE_DIED, Reason.AGENT_DIED, Reason.PROCESS_LOST, Reason.GROUP_LOST, Reason.NODE_GONE]
moments = st.sampled_from([0.0, 5.0, 95.0, 100.0])
losses = st.builds(Loss, st.sampled_from(LOSSES), st.just("gone"))


def rarely(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.none(), st.none(), strategy)


@st.composite
def host_views(draw: Any, state: HostState, node: str) -> HostView:
    view = HostView()
    if state is not HostState.PENDING or draw(st.booleans()):
        view.node_id = node
    if state in {HostState.READY, HostState.RUNNING} or (view.node_id and draw(st.booleans())):
        view.agent_node = node if state in {HostState.READY, HostState.RUNNING} else draw(st.sampled_from([node, "x"]))
        view.devices = 4 if state in {HostState.READY, HostState.RUNNING} else draw(st.sampled_from([4, 4, 3]))
    else:
        view.failed = draw(rarely(st.just("no disk space")))
    view.lost = draw(rarely(losses))
    view.notices = draw(rarely(st.dictionaries(st.sampled_from(["gce", "own"]), moments, min_size=1)))
    view.alive = draw(st.sampled_from([None, ATTEMPT]))
    view.gone = draw(st.sampled_from([None, ATTEMPT]))
    return view


@st.composite
def lives(draw: Any, number: int = 1) -> Life:
    """One slice in any state, with anything observed that can be observed in it."""
    name = f"slice-{number}"
    state = draw(st.sampled_from(list(SliceState)))
    states = [draw(st.sampled_from(HOST_STATES[state])) for _ in range(HOSTS)]
    hosts = tuple(HostRecord(f"{name}/{rank}", name, rank, state=own) for rank, own in enumerate(states))
    record = SliceRecord(name, hosts, state=state, since=draw(moments), reason=Reason.DESIRED)
    views = tuple(draw(host_views(own, f"n{number}-{rank}")) for rank, own in enumerate(states))
    view = SliceView(name, views)
    if state is SliceState.PENDING:
        view.refused = draw(rarely(st.just("no")))
        view.reserved = draw(st.booleans())
    else:
        view.reserved = True
        record.place = f"place-{number}"
    view.place = f"place-{number}" if view.reserved else None
    view.lost = draw(rarely(losses))
    if state in {SliceState.RUNNING, SliceState.PREEMPTED}:
        record.attempt = ATTEMPT if state is SliceState.RUNNING else draw(st.sampled_from([None, ATTEMPT]))
        ranks = draw(st.sets(st.integers(0, HOSTS - 1)))
        view.outcomes = {(ATTEMPT, rank): Outcome(OutcomeKind.RETURNED) for rank in ranks}
    if state is SliceState.PREEMPTED:
        record.lost = draw(st.booleans())
        record.deadline = draw(rarely(moments))
    view.released = state is SliceState.DRAINING and draw(st.booleans())
    heard = [draw(st.sampled_from([80.0, 99.0])) for _ in range(HOSTS)]
    life = Life(record, view, heard, list(heard))
    life.over = draw(st.sampled_from([None, record.attempt]))
    life.drain_by = draw(rarely(st.just(5.0)))
    life.noted_loss = state is SliceState.PREEMPTED and draw(st.booleans())
    return life


@st.composite
def fleets(draw: Any) -> Fleet:
    """A fleet of up to four such slices with any wish, at loop time 100."""
    settings = Settings(pending_s=90.0, placed_s=60.0)
    found = [draw(lives(number)) for number in range(1, draw(st.integers(0, 4)) + 1)]
    sizes = parse_sizes(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    runs = [
        RunRecord(f"run-{number}", None, RunOptions(sizes=draw(rarely(st.just((1,))))), 0.0, 0.0, lambda _: None)
        for number in range(2, 2 + draw(st.integers(0, 2)))
    ]
    for run in runs:
        run.sizes = run.options.sizes or sizes
    vacancies = st.builds(Vacancy, st.just("slice-0"), st.booleans(), st.just(1), st.sampled_from([0.0, 101.0]))
    return Fleet(
        settings=settings,
        desired=Desired(sizes, draw(st.integers(0, 1))),
        lives={life.record.id: life for life in found},
        runs=runs,
        places=Places(settings),
        backoff=Backoff(0.5, 60.0, random.Random(0)),
        pause=Pause(draw(st.sampled_from([0.0, 200.0])), 1),
        added_at=draw(moments),
        hosts=HOSTS,
        vacancies=draw(st.lists(vacancies, max_size=1)),
        next_number=len(found) + 1,
        now=100.0,
        surveyed=True,
        epoch=1_100.0,
        blind=draw(st.booleans()),
        closing_by=draw(rarely(st.just(3.0))),
    )


@pytest.fixture(scope="session")
def any_life() -> st.SearchStrategy[Life]:
    return lives()


@pytest.fixture(scope="session")
def any_fleet() -> st.SearchStrategy[Fleet]:
    return fleets()
