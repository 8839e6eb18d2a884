"""What can be explained from a history alone: slices that wait, and runs that were interrupted."""

import pytest

from sliceform.controller.errors import InsufficientSlicesError
from sliceform.controller.report.explain import explain_fleet, explain_run, explain_slice
from sliceform.controller.report.known import Known
from sliceform.controller.report.look import Look
from sliceform.states import Reason


@pytest.fixture
def world(sim_fleet):
    return sim_fleet(2, ["rack-a", "rack-b"], settings={"avoid_lost_s": 5.0})


def codes(why):
    return list(why.codes)


def test_a_slice_says_which_hosts_it_waits_for(sim_fleet):
    world = sim_fleet(1, 1, agent_s=5.0)
    world.until(lambda: world.rows("placed"))
    why = explain_slice(Known(world.fleet.history), "slice-1", Look(world.clock.epoch() + 3))
    assert why.summary.startswith("slice-1 is placed since 3.")
    assert why.findings[0].text == "it waits for host 0, 1 of slice-1 to answer"


def test_a_replacement_says_what_is_kept_away_from(world):
    world.ready()
    world.sim.kill_host("rack-b", 0)
    world.go(1.0)
    why = explain_slice(Known(world.fleet.history), "slice-3", Look(world.clock.epoch()))
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
        life = world.known.lives["slice-1"]
        world.fleet._ledger.note(life.record, Reason.EFFECT_FAILED, f"try {number}")
    why = explain_slice(Known(world.fleet.history), "slice-1", Look(2.0))
    assert [finding.text for finding in why.findings] == ["try 4", "try 3", "try 2", "and 2 times before"]


def test_work_that_stands_still_says_since_when(world):
    world.ready()
    run = world.fleet.options(slices=2).submit(max, 1, 2)
    world.go(1.0)
    world.sim.kill_host("rack-b", 0)
    world.go(2.0)
    why = explain_run(Known(world.fleet.history), run.id, Look(world.clock.epoch()))
    assert why.state == "waiting"
    assert codes(why) == ["waiting", "waiting", "attempt_ended", "lost", "replaced", "stood_still"]
    assert "slice-3 replaced slice-2 and is not ready yet" in str(why)
    assert "its work stands still since " in str(why)
    fleet = explain_fleet(Known(world.fleet.history), Look(world.clock.epoch()), wanted=2)
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
    assert explain_slice(Known(history), "slice-9", Look(0.0)).state == "unknown"
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


def noticed(sim_fleet):
    """A run whose slice was given notice, and that has gone on with another."""
    world = sim_fleet(1, 3, spares=1, work_s=600.0).ready(2)
    run = world.fleet.submit(int)
    world.until(lambda: world.rows("running"))
    world.sim.notice(world.rows("running")[0].place, 0, deadline_in_s=30.0)
    world.until(lambda: len(run.attempts) == 2 and world.rows("running"), 120.0)
    world.go(5.0)
    return world, run


def test_a_notice_is_not_the_loss_and_stops_no_work(sim_fleet):
    world, run = noticed(sim_fleet)
    first, second = run.attempts
    (told,) = world.fleet.history.runs()
    (pause,) = told.pauses
    assert first.ended_epoch_s - pause.loss.at == pytest.approx(30.0, abs=2.0)
    assert pause.stopped_at == pytest.approx(first.ended_epoch_s, abs=0.2)
    assert pause.seconds == pytest.approx(second.started_epoch_s - first.ended_epoch_s, abs=0.5)
    why = world.fleet.why(run.id)
    assert "noticed" in why.codes
    assert "lost" not in why.codes
    assert "was given notice at " in str(why)
    assert "after the notice" in str(why)
    assert "was given notice last" in explain_fleet(Known(world.fleet.history), Look(world.clock.epoch())).summary
    (loss,) = world.fleet.history.losses()
    assert (loss.noticed, loss.lost_at) == (True, None)


def test_a_loss_after_the_notice_is_told_as_such_and_stops_the_work(sim_fleet):
    world = sim_fleet(1, 3, spares=1, work_s=600.0).ready(2)
    run = world.fleet.submit(int)
    world.until(lambda: world.rows("running"))
    place = world.rows("running")[0].place
    world.sim.notice(place, 0, deadline_in_s=60.0)
    world.go(10.0)
    world.sim.remove_slice(place)
    world.until(lambda: len(run.attempts) == 2, 60.0)
    (loss,) = world.fleet.history.losses()
    assert loss.lost_at - loss.at == pytest.approx(10.0, abs=1.5)
    (pause,) = world.fleet.history.runs()[0].pauses
    assert pause.stopped_at == loss.lost_at
    assert "was given notice at " in str(world.fleet.why(run.id))
    assert "; it was lost at " in str(world.fleet.why(run.id))


def test_work_on_a_drained_slice_stands_still_from_its_end(sim_fleet):
    world = sim_fleet(1, 3, spares=1, work_s=600.0, stop_s=15.0).ready(2)
    run = world.fleet.submit(int)
    world.until(lambda: world.rows("running"))
    world.fleet.drain(world.rows("running")[0].id, deadline_s=20.0)
    world.until(lambda: len(run.attempts) == 2, 60.0)
    (pause,) = world.fleet.history.runs()[0].pauses
    assert pause.stopped_at - pause.loss.at == pytest.approx(15.0, abs=1.0)
    assert pause.stopped_at == pytest.approx(run.attempts[0].ended_epoch_s, abs=0.5)


def test_a_living_run_whose_beginning_was_forgotten_is_explained(sim_fleet):
    """Also one of which nothing at all is kept: what stands in the status is known."""
    world = sim_fleet(
        1, 1, work_s=1e7, settings={"history_limit": 30, "avoid_lost_s": 0.0, "backoff_max_s": 0.5}
    ).ready()
    first = world.fleet.options(max_preemptions=1_000).submit(int)
    world.fleet.submit(int)
    world.go(1.0)
    assert world.fleet.why("run-2").summary == "run-2 is waiting after 0 attempts: no attempt has begun"
    for _ in range(8):
        world.until(lambda: world.rows("running"))
        place = world.rows("running")[0].place
        world.sim.kill_host(place, 0)
        world.sim.restore_slice(place)
        world.go(60.0)
    assert not world.fleet.history.runs("run-2")
    why = world.fleet.why("run-2")
    assert (why.key, why.state) == ("run-2", "waiting")
    assert why.summary.startswith("run-2 is waiting; what led there was forgotten")
    assert world.fleet.why(first.id).state == first.status().state
    assert {row.key for row in world.fleet.why().runs} >= {"run-2"}
    assert {row.key for row in world.fleet.why().runs} <= {"run-1", "run-2"}


def test_a_run_that_was_just_handed_in_is_explained(sim_fleet):
    world = sim_fleet(1, 1).ready()
    assert world.fleet.why(world.fleet.submit(int).id).state == "waiting"


def test_a_long_queue_is_explained_with_as_few_looks_as_a_short_one(sim_fleet, monkeypatch):
    """Each look goes through the whole history."""
    world = sim_fleet(1, 1, work_s=1e6).ready()
    asked = []
    for name in ("window", "story", "select"):
        method = getattr(type(world.fleet.history), name)
        monkeypatch.setattr(
            world.fleet.history,
            name,
            lambda *keys, name=name, method=method, **wanted: (
                asked.append(name) or method(world.fleet.history, *keys, **wanted)
            ),
        )
    looks = []
    for _ in range(2):
        for _ in range(10):
            world.fleet.submit(int)
        world.go(1.0)
        asked.clear()
        assert len(world.fleet.why().runs) == len(world.fleet.status().runs) - 1
        looks.append(len(asked))
    assert looks[0] == looks[1] < 10


def test_a_time_of_another_day_has_its_date():
    look = Look(now=86_400.0 + 60.0)
    assert look.at(86_400.0) == "00:00:00.000"
    assert look.at(86_399.0) == "1970-01-01 23:59:59.000"
