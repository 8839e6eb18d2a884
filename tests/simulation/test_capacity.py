"""Capacity that goes and comes back: the fleet settles on the largest valid size that is there, and its run with it.

The times are those that docs/concepts.md states, with a little for the cluster.
"""

import uuid

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.testing import FakeClock, SimBackend

SETTINGS = Settings(settle_s=5.0, surplus_s=20.0, scale_up_after_s=10.0, drain_grace_s=5.0, avoid_lost_s=10.0)
#: What the simulated cluster takes to notice a loss, and to make slices ready.
CLUSTER_S = 20.0

wishes = st.lists(st.integers(1, 6), min_size=2, max_size=3, unique=True).map(sorted)


@pytest.fixture(autouse=True)
def the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller draws its jitter from its own random name."""
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=1))


class World:
    """A fleet with one endless run, and places that come and go."""

    def __init__(self, sizes: list[int], places: int, seed: int) -> None:
        self.sizes = sizes
        self.clock = FakeClock()
        self.sim = SimBackend(TpuSlice("v4-8"), places, clock=self.clock, seed=seed, work_s=1e9)
        self.fleet = SliceController(
            TpuSlice("v4-8"), sizes, settings=SETTINGS, backend=self.sim, clock=self.clock, spares=0
        )
        self.run = self.fleet.submit(int)

    def settles_within(self, seconds: float, places: int) -> None:
        """See that run and fleet are on the largest size that so many places suffice for, and stay there."""
        largest = max((size for size in self.sizes if size <= places), default=0)
        for _ in range(round(seconds)):
            self.clock.advance(1.0)
            self.fleet.step()
        counts = self.fleet.status().counts
        assert counts.get("running", 0) == largest, self.fleet.status()
        if 0 < largest < self.sizes[-1]:
            assert counts.get("ready", 0) + counts.get("running", 0) <= places

    def surplus_is_back(self, places: int) -> None:
        """After the whole of a pause, no more is held than is of use, but while the next size is tried for."""
        reached = self.fleet.status().ready
        largest = max((size for size in self.sizes if size <= places), default=0)
        if largest in {0, self.sizes[-1]}:
            return
        assert reached == largest or self.fleet._ledger.fleet.pause.count > 0


@example(sizes=[2, 4], had=4, left=3, returns="at once", seed=0)
@example(sizes=[2, 4, 6], had=5, left=3, returns="unseen", seed=0)
@given(
    sizes=wishes,
    had=st.integers(1, 7),
    left=st.integers(0, 6),
    returns=st.sampled_from(["at once", "unseen"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_fleet_follows_lasting_losses_down_and_up(
    sizes: list[int], had: int, left: int, returns: str, seed: int
) -> None:
    world = World(sizes, had, seed)
    down_s = SETTINGS.settle_s + CLUSTER_S
    world.settles_within(down_s, had)
    gone = world.sim.places[left:]
    for place in gone:
        world.sim.remove_slice(place)
        if returns == "unseen":
            # New machines are there, but others have them: nothing tells when they come free.
            world.sim.hold(place)
            world.sim.restore_slice(place)
    there = min(had, left)
    world.settles_within(down_s, there)
    world.settles_within(3 * SETTINGS.surplus_s, there)
    world.surplus_is_back(there)
    for place in gone:
        if returns == "unseen":
            world.sim.let_go(place)
        else:
            world.sim.restore_slice(place)
    longest_pause_s = 16 * SETTINGS.surplus_s if returns == "unseen" else 0.0
    world.settles_within(longest_pause_s + SETTINGS.scale_up_after_s + SETTINGS.drain_grace_s + down_s, had)
    world.fleet.close(grace_s=0.0)
