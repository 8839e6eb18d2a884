"""The swarm, for a few seconds, and its own parts."""

import importlib.util
import sys
import uuid
from pathlib import Path

import pytest

from sliceform.controller.testing.inputs import Input

PATH = Path(__file__).with_name("swarm.py")


@pytest.fixture
def swarm(monkeypatch):
    """The script as a module; playing makes the random names of controllers follow from the seed."""
    monkeypatch.setattr(uuid, "uuid4", uuid.uuid4)
    spec = importlib.util.spec_from_file_location("swarm", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "swarm", module)
    spec.loader.exec_module(module)
    return module


def test_a_short_swarm_finds_nothing(swarm):
    """A few schedules on fleets of 16 slices; `make swarm` goes on for a minute."""
    for seed in range(6):
        assert swarm.play(swarm.draw(seed, 16)).failure == ""


def test_a_schedule_plays_the_same_again_from_its_file(swarm):
    """The scenario is all that is needed."""
    schedule = swarm.draw(3, 16)
    again = swarm.Schedule.parse(str(schedule))
    assert again == schedule
    assert swarm.play(again) == swarm.play(schedule)


def test_what_fails_is_shrunk_to_what_is_needed(swarm, monkeypatch):
    """A violation that one input brings about leaves that input."""
    bad = Input("remove_slice", ("v4-8-2",))
    played = swarm.Played
    monkeypatch.setattr(swarm, "play", lambda schedule: played(0, 0, "bad" if bad in schedule.inputs else ""))
    schedule = swarm.draw(1, 16)
    middle = len(schedule.inputs) // 2
    inputs = tuple(each for each in schedule.inputs if each != bad)
    mixed = swarm.replace(schedule, inputs=(*inputs[:middle], bad, *inputs[middle:]))
    assert swarm.shrink(mixed).inputs == (bad,)


def test_an_invariant_that_is_violated_is_told(swarm, monkeypatch):
    """In the tick in which it is."""
    monkeypatch.setattr(swarm, "check_records", lambda _: ("two slices share a place",))
    played = swarm.play(swarm.draw(0, 16))
    assert "two slices share a place" in played.failure
    assert played.committed == 1
