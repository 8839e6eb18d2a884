"""What can be explained from a history alone: slices that wait, and runs that were interrupted."""

import pytest

from sliceform.controller.errors import InsufficientSlicesError
from sliceform.controller.explanations import explain_fleet, explain_run, explain_slice
from sliceform.states import Reason


@pytest.fixture
def world(sim_fleet):
    return sim_fleet(2, ["rack-a", "rack-b"], settings={"avoid_lost_s": 5.0})


def codes(why):
    return list(why.codes)


def test_a_slice_says_which_hosts_it_waits_for(sim_fleet):
    world = sim_fleet(1, 1, agent_s=5.0)
    world.until(lambda: world.rows("placed"))
    why = explain_slice(world.fleet.history, "slice-1", world.clock.epoch() + 3)
    assert why.summary.startswith("slice-1 is placed since 3.")
    assert why.findings[0].text == "it waits for host 0, 1 of slice-1 to answer"


def test_a_replacement_says_what_is_kept_away_from(world):
    world.ready()
    world.sim.kill_host("rack-b", 0)
    world.go(1.0)
    why = explain_slice(world.fleet.history, "slice-3", world.clock.epoch())
    assert codes(why) == ["waiting", "avoided", "replaces"]
    assert why.findings[1].text == "rack-b was lost with slice-2 and is kept away from"
    assert why.as_dict()["findings"][2] == {
        "code": "replaces",
        "text": "it stands in for slice-2",
        "subject": "slice-2",
    }


def test_failures_are_told_newest_first_and_counted(world):
    world.ready()
    for number in range(5):
        life = world.picture.lives["slice-1"]
        world.fleet._fleet.slices.note(life.record, at=1.0, tick=1, reason=Reason.EFFECT_FAILED, detail=f"try {number}")
    why = explain_slice(world.fleet.history, "slice-1", 2.0)
    assert [finding.text for finding in why.findings] == ["try 4", "try 3", "try 2", "and 2 times before"]


def test_work_that_stands_still_says_since_when(world):
    world.ready()
    run = world.fleet.options(slices=2).submit(max, 1, 2)
    world.go(1.0)
    world.sim.kill_host("rack-b", 0)
    world.go(2.0)
    why = explain_run(world.fleet.history, run.id)
    assert why.state == "waiting"
    assert codes(why) == ["waiting", "attempt_ended", "lost", "replaced", "stood_still"]
    assert "slice-3 replaced slice-2 and is not ready yet" in str(why)
    assert "its work stands still since " in str(why)
    fleet = explain_fleet(world.fleet.history, world.clock.epoch(), wanted=2)
    assert [row.key for row in fleet.slices] == ["slice-3"]
    assert [row.key for row in fleet.runs] == [run.id]
    assert fleet.summary.startswith("1 of 2 slices ready; slice-2 was lost last, at ")


def test_the_fleet_says_why_a_run_waits(world):
    world.ready()
    world.fleet.options(slices=2).submit(max, 1, 2)
    second = world.fleet.options(slices=2).submit(max, 1, 2)
    world.go(1.0)
    why = world.fleet.why(second.id)
    assert (why.key, why.state) == ("run-2", "waiting")
    assert why.findings[0] == ("waiting", "waits for 2 ready slices that are free; 0 are", "")
    world.over(second)
    assert world.fleet.why(second.id).summary == "run-2 succeeded after 1 attempt: every host returned"


def test_an_unknown_key_is_refused_with_the_known_ones(world):
    world.ready()
    world.fleet.submit(max, 1, 2)
    world.go(1.0)
    with pytest.raises(KeyError, match="no slice 'slice-9' in this fleet; known: slice-1, slice-2, run-1"):
        world.fleet.why("slice-9")


def test_a_slice_whose_past_was_forgotten_is_explained_as_far_as_it_is_known(sim_fleet):
    """Also where that is asked for a person: a wait that is over in vain tells why."""
    world = sim_fleet(2, 1, settings={"history_limit": 3}, remove_s=4.0).ready(1)
    world.fleet.drain("slice-1", deadline_s=0.0)
    world.until(lambda: world.row("slice-1").state == "draining")
    for key in ("slice-1", "slice-2"):
        assert key in str(world.fleet.why())
    history = world.fleet.history
    assert explain_slice(history, "slice-9", 0.0).state == "unknown"
    with pytest.raises(InsufficientSlicesError, match="slice-2 is pending"):
        world.fleet.wait_ready(2, timeout_s=1.0)


def test_the_driver_hears_of_slices_that_go_or_are_gone_and_of_runs_too(sim_fleet):
    world = sim_fleet(2, 3, work_s=60.0, remove_s=4.0).ready()
    run = world.fleet.submit(int)
    world.until(lambda: run.record.active is not None)
    world.go(2.0)
    world.sim.kill_host(world.place("slice-1"), 0)
    world.until(lambda: world.row("slice-1").state == "draining")
    assert {"lost", "replaced"} <= set(world.fleet.why("slice-1").codes)
    world.until(lambda: "slice-1" not in world.ids())
    assert {"lost", "replaced"} <= set(world.fleet.why("slice-1").codes)
    assert world.fleet.why("slice-1").state == "gone"
    world.until(lambda: len(run.attempts) == 2)
    (told,) = world.fleet.why().runs
    assert told.key == run.id
    assert "stood_still" in told.codes
    world.over(run)
    assert world.fleet.why().runs == ()
