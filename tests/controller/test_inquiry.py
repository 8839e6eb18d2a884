"""Why a slice is pending stands in the history: asked for rarely, for all together, and noted when it changes."""

import itertools

import pytest

from sliceform.controller.model.events import EffectFailed
from sliceform.controller.model.finding import Finding, read, same, write
from sliceform.controller.report.explain import explain_run, explain_slice
from sliceform.controller.report.known import Known
from sliceform.controller.report.look import Look
from sliceform.states import Reason
from sliceform.states.effects import Effect


def questions(world, monkeypatch):
    asked = []
    inquire = world.sim.inquire
    monkeypatch.setattr(world.sim, "inquire", lambda *key: asked.append(world.clock.monotonic()) or inquire(*key))
    return asked


def held(sim_fleet, by="somebody"):
    world = sim_fleet(2, ["rack-a", "rack-b"])
    world.sim.hold("rack-b", by=by)
    return world


def test_the_cause_is_noted_once(sim_fleet):
    world = held(sim_fleet)
    world.go(300.0)
    (note,) = world.notes(Reason.HELD_UP)
    assert note.key == "slice-2"
    assert "the chips of rack-b are held by placement group somebody" in note.detail
    assert 5.0 <= note.at - world.fleet.history.story("slice-2")[0].at <= 12.0
    world.sim.let_go("rack-b")
    world.ready()
    assert len(world.notes(Reason.HELD_UP)) == 1


def test_a_new_cause_is_a_new_note(sim_fleet):
    world = held(sim_fleet)
    world.go(100.0)
    world.sim.kill_host("rack-b", 0)
    world.go(130.0)
    assert [("missing" in note.detail) for note in world.notes(Reason.HELD_UP)] == [False, True]


def test_what_comes_soon_is_not_asked_about(sim_fleet, monkeypatch):
    world = sim_fleet(2, 2)
    asked = questions(world, monkeypatch)
    world.ready().go(100.0)
    assert asked == []


def test_an_hour_of_waiting_costs_few_questions_for_any_number_of_slices(sim_fleet, monkeypatch):
    world = sim_fleet(30, 1)
    asked = questions(world, monkeypatch)
    world.go(3600.0, every=1.0)
    assert len(asked) < 100
    assert min(late - early for early, late in itertools.pairwise(asked)) >= 5.0
    notes = world.notes(Reason.HELD_UP)
    assert sorted({note.key for note in notes}) == sorted(world.ids("pending"))
    assert len(notes) == 29


def test_a_question_without_an_answer_is_asked_again(sim_fleet):
    world = held(sim_fleet)
    world.faulty.inject(lose=1.0)
    world.go(30.0)
    world.faulty.heal()
    world.go(30.0)
    assert world.notes(Reason.HELD_UP) == []
    world.go(60.0)
    assert world.notes(Reason.HELD_UP)


def test_a_run_leads_to_what_its_slices_wait_for(sim_fleet):
    world = held(sim_fleet)
    run = world.fleet.options(slices=2).submit(int)
    world.go(60.0)
    history, now = world.fleet.history, world.clock.epoch()
    text = str(explain_slice(Known(history), "slice-2", Look(now)))
    assert "chips_held: the chips of rack-b are held by placement group somebody (seen at " in text
    for why in (world.fleet.why(run.id), explain_run(Known(history), run.id, Look(now))):
        assert "slice-2 is pending: chips_held: " in str(why)
        assert "are held by placement group somebody" in str(why)
    past = explain_run(Known(history), run.id, Look(now, over=True))
    assert "slice-2 was pending: chips_held: " in str(past)
    (told,) = world.fleet.why().runs
    assert "slice-2" not in str(told)


def test_findings_come_back_from_a_note():
    findings = [Finding("chips_held", f"rack-{number}: held", f"group-{number}") for number in range(5)]
    text = write(findings)
    assert [finding.code for finding in read(text)] == ["chips_held"] * 3
    assert read(text)[0].text == "rack-0: held"
    assert read(text)[-1].text == "rack-2: held; and 2 more"
    assert len(write([Finding("refused", "x" * 10_000)])) < 300


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        ([Finding("chips_held", "held for 7.5 s", "rack")], True),
        ([Finding("chips_held", "held for 7 s", "another")], False),
        ([Finding("avoided", "held for 7 s", "rack")], False),
        ([], False),
        (None, False),
    ],
)
def test_numbers_in_the_words_make_no_other_cause(other, alike):
    assert same([Finding("chips_held", "held for 7 s", "rack")], other) is alike


def test_whoever_asks_why_reads_the_cluster_once_for_all_that_are_pending(sim_fleet, monkeypatch):
    world = sim_fleet(9, 1).ready(1)
    asked = []
    explain = world.sim.explain
    monkeypatch.setattr(world.sim, "explain", lambda *key: asked.append(key) or explain(*key))
    assert len(world.fleet.why().slices) == 8
    assert len(asked) == 1


def test_a_failure_is_told_though_the_cause_was_noted_after_it(sim_fleet):
    world = held(sim_fleet)
    world.go(2.0)
    world.fleet._loop.post(EffectFailed("slice-2", Effect.RESERVE, "no quota"))
    world.go(30.0)
    assert world.notes(Reason.HELD_UP)
    assert world.fleet.why("slice-2").codes[0] == "effect_failed"
