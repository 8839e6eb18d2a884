"""No two attempts of a run at a time: what the next attempt waits for when a slice is lost, and how long."""

from collections.abc import Callable
from typing import Any

import pytest

SILENCE_S, FENCE_S = 10.0, 20.0

#: `conftest.SimFleet`, which cannot be imported from here.
SimFleet = Any
Working = Callable[..., SimFleet]


@pytest.fixture
def working(sim_fleet: Callable[..., SimFleet]) -> Working:
    """A run on two of three slices that has worked for 5 s; it never ends."""

    def start(**timings: float) -> SimFleet:
        world = sim_fleet(
            2, ["a", "b", "c"], work_s=1e7, settings={"beat_s": 2.0, "fence_s": FENCE_S}, **timings
        ).ready()
        world.fleet.submit(lambda: None)
        world.go(5.0)
        assert attempts(world) == 1
        return world

    return start


def attempts(world: SimFleet) -> int:
    return len(world.fleet.status().runs[0].attempts)


def fenced(world: SimFleet) -> list[str]:
    """What the run's history says of hosts that did not answer for themselves."""
    return [c.detail for c in world.history if c.reason in {"host_died", "fenced_by_time"}]


def test_a_host_that_died_as_a_whole_is_not_waited_for(working: Working) -> None:
    world = working()
    world.sim.kill_host("a", 1)
    world.until(lambda: attempts(world) == 2, within_s=3.0)
    assert fenced(world) == ["slice-1/1 host died"]


def test_nor_is_one_whose_slice_is_not_seen_released(working: Working) -> None:
    world = working(remove_s=4.0)
    world.sim.kill_host("a", 1)
    world.until(lambda: attempts(world) == 2, within_s=3.0)
    assert [row.state for row in world.rows() if row.id == "slice-1"] == ["draining"]


def test_a_host_that_stands_still_is_waited_for_until_its_agent_has_ended_the_work_by_its_own_clock(
    working: Working,
) -> None:
    world = working()
    world.sim.freeze_host("a", 1)
    world.until(lambda: "slice-1" not in {row.id for row in world.rows()}, within_s=SILENCE_S + 2.0)
    waited = SILENCE_S
    while attempts(world) == 1:
        world.step()
        waited += 0.25
    assert FENCE_S - 2.0 - 0.5 <= waited <= FENCE_S + 1.0
    assert fenced(world) == ["slice-1/1 fenced by time"]
    world.sim.thaw_host("a", 1)
    world.go(5.0)
    assert attempts(world) == 2


def test_a_host_that_goes_on_meanwhile_says_so_itself(working: Working) -> None:
    world = working()
    world.sim.freeze_host("a", 1)
    world.go(15.0)
    assert attempts(world) == 1
    world.sim.thaw_host("a", 1)
    world.until(lambda: attempts(world) == 2, within_s=1.0)
    assert fenced(world) == []


def test_a_dead_node_in_the_table_proves_nothing(working: Working) -> None:
    world = working(frozen_death_s=5.0)
    world.sim.freeze_host("a", 1)
    world.until(lambda: "slice-1" not in {row.id for row in world.rows()}, within_s=8.0)
    world.go(FENCE_S - 10.0)
    assert attempts(world) == 1
    world.until(lambda: attempts(world) == 2, within_s=10.0)
    assert fenced(world) == ["slice-1/1 fenced by time"]


def test_an_agent_that_answers_ends_the_work_though_its_raylet_stands_still(working: Working) -> None:
    world = working()
    world.sim.freeze_host("a", 1, daemon_only=True)
    world.until(lambda: attempts(world) == 2, within_s=SILENCE_S + 2.0)
    assert fenced(world) == []
