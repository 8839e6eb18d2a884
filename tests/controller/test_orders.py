"""Orders: what a user asks for is taken by the loop, and stands in the history as a note."""

from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from sliceform.controller.errors import ConfigurationError, FleetClosedError
from sliceform.controller.model.functions import digest_of
from sliceform.states import Reason

Make = Callable[..., Any]


def test_every_order_is_noted(sim_fleet: Make) -> None:
    world = sim_fleet(2, 4).ready()
    run = world.fleet.options(env={"TOKEN": "s3cret"}, slices=[1, 2]).submit(digest_of, print)
    world.step()
    run.cancel(0.5)
    world.over(run)
    world.fleet.scale([1, 3], spares=1)
    world.fleet.avoid("rack-z", 60.0, "odd")
    world.fleet.allow("rack-z")
    world.fleet.drain("slice-1", 2.0)
    world.go(5.0)
    world.fleet.close(grace_s=3.0)
    orders = [change for change in world.history if change.is_note or change.trigger == "submit"]
    told = {Reason(order.reason): (order.kind, order.key, order.detail) for order in orders}
    digest = digest_of(digest_of)
    options = "1 or 2 slices; max_preemptions 100; max_failures 0; env TOKEN"
    assert told[Reason.RUN_SUBMITTED] == ("run", "run-1", f"digest_of {digest}; {options}")
    assert [note.detail for note in world.notes(Reason.RUN_CANCELLED)] == ["it has 0.5 s to stop"]
    assert told[Reason.SCALE_ORDERED] == ("fleet", "fleet", "to 1 or 3 slices and 1 spare")
    assert told[Reason.AVOID_ORDERED] == ("fleet", "fleet", "rack-z for 60 s: odd")
    assert told[Reason.ALLOW_ORDERED] == ("fleet", "fleet", "rack-z")
    assert told[Reason.DRAIN_ORDERED] == ("slice", "slice-1", "its work has 2 s to stop")
    assert told[Reason.CLOSE_ORDERED] == ("fleet", "fleet", "what runs has 3 s to stop")
    assert not any("s3cret" in change.detail for change in world.history)


def test_no_reservation_goes_to_a_place_that_is_avoided_until_it_is_allowed(sim_fleet: Make) -> None:
    world = sim_fleet(1, 2).ready()
    there, other = world.place("slice-1"), next(p for p in world.sim.places if p != world.place("slice-1"))
    world.fleet.avoid(there)
    world.fleet.avoid(other, reason="bad cable")
    world.fleet.scale(2)
    world.go(20.0)
    assert world.row("slice-1").state == "ready", "what is there stays"
    assert world.row("slice-2").state == "pending"
    assert world.fleet.status().avoided[other] == "ordered: bad cable"
    assert world.fleet.places()[other].state == "avoided"
    world.fleet.allow(other)
    world.ready()
    assert world.place("slice-2") == other


def test_an_order_to_avoid_ends_with_its_time_and_not_before(sim_fleet: Make) -> None:
    """Other causes end sooner, when the nodes that they are about are gone."""
    world = sim_fleet(1, 1)
    (place,) = world.sim.places
    world.fleet.avoid(place, 30.0)
    world.go(10.0)
    world.sim.remove_slice(place)
    world.go(10.0)
    world.sim.restore_slice(place)
    world.go(9.0)
    assert world.ids("ready") == []
    world.ready()


def test_an_order_to_avoid_is_not_replaced_by_a_quarantine(sim_fleet: Make) -> None:
    places = sim_fleet(1, 1).known.places
    places.avoid("rack-a", None, "bad cable")
    for now in (1.0, 2.0, 3.0):
        places.failed("rack-a", "node-1", now, "no disk space")
    assert places.avoided["rack-a"].detail == "bad cable"
    places.allow("rack-a")
    assert places.names() == frozenset()


@pytest.mark.parametrize(
    "order",
    [
        lambda fleet: fleet.avoid(""),
        lambda fleet: fleet.avoid(None),
        lambda fleet: fleet.allow(7),
        lambda fleet: fleet.avoid("rack-a", -1.0),
        lambda fleet: fleet.avoid("rack-a", float("nan")),
    ],
)
def test_what_is_no_place_or_no_time_is_refused(sim_fleet: Make, order: Callable[[Any], None]) -> None:
    world = sim_fleet(1, 1)
    with pytest.raises(ConfigurationError):
        order(world.fleet)
    world.step()
    assert not world.notes(Reason.AVOID_ORDERED)


def test_a_closed_fleet_takes_no_orders(sim_fleet: Make) -> None:
    world = sim_fleet(1, 1).ready()
    world.fleet.close()
    for order in (lambda: world.fleet.avoid("rack-a"), lambda: world.fleet.allow("rack-a")):
        with pytest.raises(FleetClosedError):
            order()


def test_orders_for_what_has_gone_change_nothing(sim_fleet: Make) -> None:
    world = sim_fleet(1, 2).ready()
    run = world.over(world.fleet.submit(int))
    run.cancel()
    world.step()
    assert world.notes(Reason.RUN_CANCELLED) == []
    assert run.result().values == [0, 0]


def test_the_digest_of_a_function_changes_with_its_text_alone() -> None:
    def one(x: int) -> int:
        return x + 1

    def other(x: int) -> int:
        return x - 1

    assert len(digest_of(one)) == 12
    assert digest_of(one) == digest_of(one) != digest_of(other)
    assert digest_of(max) == ""
    lost = [FunctionType(compile(f"lambda: {n}", "<string>", "eval").co_consts[0], {}) for n in (1, 2)]
    assert digest_of(lost[0]) != digest_of(lost[1]) != ""


@pytest.mark.parametrize("changed", ["def other(:\n    (((\n", "x = '''\n", "if x:\n      y\n   z\n", ""])
def test_a_function_whose_file_was_changed_under_it_can_be_submitted(tmp_path: Path, changed: str) -> None:
    """As when somebody edits while the driver goes on; what Python makes of that file then differs by its version."""
    path = tmp_path / "edited_since.py"
    path.write_text("def work():\n    return 1\n", encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)  # noqa: S102 - our own two lines
    path.write_text(changed, encoding="utf-8")
    assert len(digest_of(names["work"])) == 12
