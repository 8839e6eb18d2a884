"""What a fleet asks of its backend, in full: every request of a life, in the order in which they are made."""

from typing import Any, get_args

import pytest

from sliceform.controller.model.effects import Assemble, EffectRequest, Launch, Notify, Release, Reserve, Stop
from sliceform.controller.model.shapes import GpuSlice, TpuSlice
from sliceform.states import Effect

SHAPE = TpuSlice("v4-16")


@pytest.fixture
def asking(sim_fleet):
    """Make a fleet, and the list of what it asks."""

    def make(*args: Any, **kwargs: Any) -> tuple[Any, list[EffectRequest]]:
        world = sim_fleet(*args, **kwargs)
        asked: list[EffectRequest] = []
        submit = world.sim.submit

        def note(request: EffectRequest) -> None:
            asked.append(request)
            submit(request)

        world.sim.submit = note
        return world.ready(), asked

    return make


def test_every_effect_has_a_request_of_its_name():
    assert {each.__name__.lower(): each.effect for each in get_args(EffectRequest)} == {
        each.value: each for each in Effect
    }


def test_a_slice_is_reserved_then_assembled_where_it_is(asking):
    _, asked = asking(2, ["rack-a", "rack-b"])
    assert asked == [
        Reserve("slice-1", SHAPE),
        Reserve("slice-2", SHAPE),
        Assemble("slice-1", SHAPE, "rack-a"),
        Assemble("slice-2", SHAPE, "rack-b"),
    ]


def test_gpu_hosts_have_their_group_since_they_were_reserved(asking):
    shape = GpuSlice(2, gpus_per_host=4)
    world, asked = asking(1, 1, shape=shape, work_s=5.0)
    world.over(world.fleet.submit(str))
    assert asked == [
        Reserve("slice-1", shape),
        Assemble("slice-1", shape, None),
        Launch("slice-1", shape, asked[-1].attempt, 0),
    ]


def test_every_slice_of_an_attempt_is_launched_by_its_rank(asking):
    world, asked = asking(2, 2, work_s=60.0)
    world.fleet.submit(str)
    world.go(2.0)
    spec = asked[-1].attempt
    assert (spec.key, spec.run_id, spec.number, spec.members) == ("run-1/1", "run-1", 1, ("slice-1", "slice-2"))
    assert asked[4:] == [Launch("slice-1", SHAPE, spec, 0), Launch("slice-2", SHAPE, spec, 1)]


def test_after_a_notice_all_work_is_told_and_stopped_and_the_slice_replaced(asking):
    world, asked = asking(2, ["rack-a", "rack-b", "rack-c"], work_s=600.0)
    world.fleet.submit(str)
    world.go(2.0)
    del asked[:]
    world.sim.notice("rack-b", 0, deadline_in_s=10.0)
    deadline = world.clock.epoch() + 10.0
    world.go(25.0)
    assert sorted(asked[:2], key=str) == [
        Notify("slice-1", "run-1/1", pytest.approx(deadline)),
        Notify("slice-2", "run-1/1", pytest.approx(deadline)),
    ]
    launched = [request for request in asked if isinstance(request, Launch)]
    assert [(each.slice_id, each.attempt.key, each.slice_rank) for each in launched] == [
        ("slice-1", "run-1/2", 0),
        ("slice-3", "run-1/2", 1),
    ]
    assert [request for request in asked[2:] if request not in launched] == [
        Reserve("slice-3", SHAPE, avoid=frozenset({"rack-b"})),
        Assemble("slice-3", SHAPE, "rack-c"),
        Stop("slice-1", "run-1/1", 0.0),
        Release("slice-2", 0.0, lost=False, attempt_key="run-1/1"),
    ]


def test_a_lost_slice_is_released_at_once(asking):
    world, asked = asking(1, ["rack-a", "rack-b"], work_s=600.0)
    world.fleet.submit(str)
    world.go(2.0)
    del asked[:]
    world.sim.kill_host("rack-a", 1)
    world.until(lambda: world.ids("placed") == ["slice-2"])
    assert asked == [
        Release("slice-1", 0.0, lost=True, attempt_key="run-1/1"),
        Reserve("slice-2", SHAPE, avoid=frozenset({"rack-a"})),
        Assemble("slice-2", SHAPE, "rack-b"),
    ]


def test_a_person_who_drains_gives_its_work_time(asking):
    world, asked = asking(1, 2, work_s=600.0)
    world.fleet.submit(str)
    world.go(2.0)
    del asked[:]
    world.fleet.drain("slice-1", deadline_s=7.0)
    world.step()
    assert Release("slice-1", pytest.approx(7.0, abs=0.3), lost=False, attempt_key="run-1/1") in asked
