"""The swarm, for a few seconds, and its own parts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sliceform.controller.testing.inputs import Input
from sliceform.controller.testing.scenario import Scenario, record

from . import swarm


def test_a_short_swarm_finds_nothing():
    """A few schedules on fleets of 16 slices; `make swarm` goes on for a minute."""
    for seed in range(6):
        assert swarm.play(swarm.draw(seed, 16).scenario).failure == ""


def test_a_schedule_plays_the_same_again_from_its_file():
    """The scenario is all that is needed."""
    schedule = swarm.draw(3, 16)
    again = Scenario.parse(str(schedule.scenario))
    assert tuple(step.what for step in again.steps) == (*schedule.inputs, *schedule.end)
    assert swarm.play(again) == swarm.play(schedule.scenario)


def test_what_fails_is_shrunk_to_what_is_needed(monkeypatch):
    """A violation that one input brings about leaves that input."""
    bad = Input("remove_slice", ("v4-8-2",))
    played = swarm.Played
    monkeypatch.setattr(
        swarm, "play", lambda scenario: played(0, 0, "bad" if bad in [step.what for step in scenario.steps] else "")
    )
    schedule = swarm.draw(1, 16)
    middle = len(schedule.inputs) // 2
    inputs = tuple(each for each in schedule.inputs if each != bad)
    mixed = replace(schedule, inputs=(*inputs[:middle], bad, *inputs[middle:]))
    assert swarm.shrink(mixed).inputs == (bad,)


def test_an_invariant_that_is_violated_is_told(monkeypatch):
    """In the tick in which it is."""
    monkeypatch.setattr(swarm, "wrong", lambda *_: ["two slices share a place"])
    played = swarm.play(swarm.draw(0, 16).scenario)
    assert "two slices share a place" in played.failure
    assert played.committed == 1


def test_what_failed_is_written_as_a_scenario_that_can_be_recorded(monkeypatch, tmp_path, capsys):
    """And be put among the others once it is mended."""
    few = swarm.draw(2, 16)
    few = replace(few, inputs=few.inputs[:20])
    found = swarm.Swarm(1, 1, 1, 1.0, ((few, "AssertionError: two slices\nshare a place"),))
    monkeypatch.setattr(swarm, "swarm", lambda *_: found)
    monkeypatch.setattr(swarm, "ProcessPoolExecutor", lambda _: ThreadPoolExecutor(1))
    assert swarm.main(["--cores", "1", "--keep", str(tmp_path)]) == 1
    (file,) = tmp_path.iterdir()
    assert file.read_text().startswith("# A swarm found: AssertionError: two slices share a place\nfleet tpu:v4-8 ")
    record(file)
    Scenario.read(file).check()
    assert swarm.main(["--replay", str(file)]) == 0
    assert "nothing is violated" in capsys.readouterr().out
