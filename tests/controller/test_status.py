"""What readers see: immutable values that print, and why something is not there yet."""

from collections.abc import Callable

import pytest

from sliceform.controller.errors import InsufficientSlicesError, RunFailed
from sliceform.controller.model.events import EffectFailed
from sliceform.controller.model.shapes import TpuSlice
from sliceform.states.effects import Effect

Make = Callable[..., "SimFleet"]  # noqa: F821 - from conftest.py


def test_cannot_be_changed_and_stays_as_it_was(sim_fleet: Make) -> None:
    world = sim_fleet(1, 2).ready()
    status = world.fleet.status()
    with pytest.raises(AttributeError):
        status.size = 7
    with pytest.raises(AttributeError):
        status.slices[0].state = "gone"
    before = str(status)
    world.fleet.scale(2)
    world.ready(2)
    assert str(status) == before
    assert status.counts == {"ready": 1}


def test_rows_of_slices_that_did_not_change_are_kept(sim_fleet: Make) -> None:
    world = sim_fleet(2, 3).ready()
    before = {row.id: row for row in world.rows()}
    world.sim.kill_host(world.place("slice-1"), 0)
    world.until(lambda: "slice-3" in world.ids("ready"))
    assert world.row("slice-2") is before["slice-2"]
    assert world.ids() == ["slice-2", "slice-3"]


def test_shows_every_host_with_its_node(sim_fleet: Make) -> None:
    world = sim_fleet(1, 1).ready()
    (row,) = world.rows()
    assert [host.rank for host in row.hosts] == [0, 1]
    assert [host.node_id for host in row.hosts] == [world.sim.node_id("v4-16-1", rank) for rank in range(2)]
    assert {(host.state, host.devices) for host in row.hosts} == {("ready", 4)}
    assert all(host.address.startswith("10.") for host in row.hosts)


def test_the_time_of_a_transition_stays_the_same_though_loop_time_stood_still(sim_fleet: Make) -> None:
    world = sim_fleet(1, 1, work_s=1e5, launch_s=30.0).ready()
    world.fleet.submit(int)
    world.until(lambda: world.rows("running") != [])
    world.sim.fail_observation(on=True)
    world.go(60.0, every=1.0)
    world.sim.fail_observation(on=False)
    world.until(lambda: {host.state for host in world.row("slice-1").hosts} == {"running"})
    (started,) = world.changes("start")
    assert world.row("slice-1").since_epoch_s == started.at


def test_shows_the_first_attempts_of_a_run_and_the_newest_and_counts_the_others(sim_fleet: Make) -> None:
    quick = {"backoff_initial_s": 0.01, "backoff_max_s": 0.01}
    world = sim_fleet(1, 1, work_s=0.1, settings=quick).ready()
    run = world.fleet.options(max_failures=110).submit(lambda: 1 / 0)
    world.over(run, within_s=600.0)
    for status in (run.status(), world.fleet.status().runs[-1]):
        assert [row.number for row in status.attempts] == [1, *range(13, 112)]
        assert {row.outcome for row in status.attempts} == {"failed"}
        assert (status.attempts_forgotten, status.failures) == (11, 111)
    assert [row.number for row in run.attempts] == [1, *range(13, 112)]
    with pytest.raises(RunFailed, match="after 111 attempts"):
        run.result()


def test_prints_as_a_table(sim_fleet: Make) -> None:
    world = sim_fleet([1, 2], 1, spares=1).ready(1)
    world.fleet.options(slices=2).submit(int)
    world.step()
    lines = str(world.fleet.status()).splitlines()
    assert lines[0].endswith("1/2 + 1 spare wanted, size 1 reached; 2 pending, 1 ready")
    assert lines[1] == "waits for 2 of 3 slices"
    assert "slice-1  ready" in lines[2]
    assert "v4-16-1" in lines[2]
    assert "2/2 hosts" in lines[2]
    assert lines[-1].strip() == "run-1: waiting; waits for 2 ready slices that are free; 1 are"


def test_effects_in_flight_are_those_of_the_moment(sim_fleet: Make) -> None:
    world = sim_fleet(1, 0)
    world.go(2.0)
    assert world.fleet.status().effects_in_flight == 1
    world.sim.add_slice()
    world.ready()
    world.go(2.0)
    assert world.fleet.status().effects_in_flight == 0


def test_runs_that_are_over_are_still_shown(sim_fleet: Make) -> None:
    world = sim_fleet(1, 1, work_s=0.0).ready()
    for _ in range(3):
        world.fleet.run(int)
    assert [(run.id, run.state) for run in world.fleet.status().runs] == [
        (f"run-{number}", "succeeded") for number in (1, 2, 3)
    ]


class TestWhy:
    def test_there_is_no_such_pod_type(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 0)
        world.sim.add_slice(shape=TpuSlice("v4-32"))
        world.go(2.0)
        why = world.fleet.why("slice-1")
        assert why.codes == ("no_such_pod_type",)
        assert "v4-16" in str(why)

    def test_the_chips_are_held_by_another(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1)
        world.sim.hold("v4-16-1", by="job-of-somebody")
        world.go(2.0)
        why = world.fleet.why("slice-1")
        assert why.codes == ("chips_held",)
        assert why.findings[0].subject == "job-of-somebody"

    def test_a_host_is_missing(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1)
        world.sim.kill_host("v4-16-1", 1)
        world.go(2.0)
        why = world.fleet.why()
        assert why.codes == ("host_missing",)
        assert why.slices[0].findings[0].subject.rpartition("/")[2] == "1"
        assert "0 of 1 slices ready" in str(why)

    def test_a_ready_slice_needs_no_reason(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 1).ready()
        why = world.fleet.why("slice-1")
        assert (why.findings, why.state) == ((), "ready")
        assert world.fleet.why().slices == ()

    def test_too_few_slices_in_time_say_why_each_one_is_missing(self, sim_fleet: Make) -> None:
        world = sim_fleet(2, 1)
        with pytest.raises(InsufficientSlicesError, match="1 of 2 slices ready") as caught:
            world.fleet.wait_ready(timeout_s=5.0)
        assert (caught.value.requested, caught.value.available) == (2, 1)
        assert list(caught.value.reasons) == ["slice-2"]
        assert "chips_held" in caught.value.reasons["slice-2"]

    def test_an_effect_that_fails_again_and_again_is_named_first(self, sim_fleet: Make) -> None:
        world = sim_fleet(1, 0)
        world.go(1.0)
        world.fleet._loop.post(EffectFailed("slice-1", Effect.RESERVE, "the GCS says no"))
        world.step()
        why = world.fleet.why("slice-1")
        assert why.codes[0] == "effect_failed"
        assert "the GCS says no" in str(why)


def test_a_long_queue_is_told_in_few_words_and_in_order(sim_fleet):
    world = sim_fleet(1, 1, work_s=60.0).ready()
    runs = [world.fleet.submit(int) for _ in range(50)]
    world.go(1.0)
    details = [row.detail for row in world.fleet.status().runs]
    assert details[1] == "waits for 1 ready slices that are free; 0 are"
    assert details[2:4] == ["waits behind run-2", "waits behind run-2 and 1 more"]
    assert details[-1] == "waits behind run-2 and 47 more"
    assert [run.status().detail for run in runs] == details
    runs[1].cancel()
    world.go(1.0)
    assert world.fleet.status().runs[-1].detail == "waits behind run-3 and 46 more"


def test_what_cannot_change_is_not_made_again(sim_fleet):
    """Neither rows of runs that wait behind others, nor those of attempts that are over."""
    world = sim_fleet(1, 2, work_s=1e6).ready()
    first = world.fleet.submit(int)
    last = [world.fleet.submit(int) for _ in range(3)][-1]
    world.until(lambda: world.rows("running"))
    world.sim.kill_host(world.rows("running")[0].place, 0)
    world.until(lambda: len(first.attempts) == 2, 120.0)
    world.go(60.0)
    before = world.fleet.status().runs
    world.go(1.0)
    after = world.fleet.status().runs
    assert (before[-1].id, before[-1] is after[-1]) == (last.id, True)
    assert before[0].attempts[0].outcome == "preempted"
    assert before[0].attempts[0] is after[0].attempts[0]
