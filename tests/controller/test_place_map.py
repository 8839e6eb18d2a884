"""Where reservations may go, kept current with the node table."""

from collections import Counter
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from sliceform.controller import GpuSlice, TpuSlice
from sliceform.controller.model.effects import Reserve
from sliceform.controller.model.events import Node
from sliceform.controller.reconcile.decide.place_map import JOINING_S, PlaceMap

SHAPE = TpuSlice("v4-16")
NOTHING: frozenset[str] = frozenset()


class Table:
    """A node table that is changed row by row, and the map that follows it."""

    def __init__(self) -> None:
        self.map = PlaceMap(SHAPE)
        self.nodes: dict[str, Node] = {}

    def see(self, place: str, *workers: int, now: float = 0.0, life: int = 0, **row: Any) -> None:
        """Let these workers of a place be there, and no others of it."""
        gone = {node for node, known in self.nodes.items() if known.place == place}
        rows = [
            Node(f"{place}{n}.{life}", alive=True, place=place, worker_id=n, pod_type="v4-16", **row) for n in workers
        ]
        self.nodes = {**{node: known for node, known in self.nodes.items() if node not in gone}}
        self.nodes |= {known.id: known for known in rows}
        self.map.take(self.nodes, gone | {known.id for known in rows}, now)

    def asked(self, avoided: frozenset[str] = NOTHING) -> Reserve:
        outlook = self.map.outlook(avoided)
        return Reserve("slice-1", SHAPE, outlook.avoid, outlook.avoid_nodes)


def test_a_place_that_is_not_whole_is_left_alone_while_a_whole_one_is_free() -> None:
    table = Table()
    table.see("a", 0)
    table.see("b", 0, 1)
    assert table.asked().avoid == {"a"}
    assert table.map.outlook(NOTHING).barred == {"a": "no living node has worker id 1"}
    table.map.hold("b", "slice-1")
    assert table.asked().avoid == NOTHING, "its hosts may be about to join"
    table.map.leave("b", "slice-1")
    assert table.asked(frozenset("b")).avoid == {"b"}
    assert table.asked().avoid == {"a"}


def test_a_place_that_was_whole_or_has_had_its_time_is_left_alone_whatever_else_is_free() -> None:
    table = Table()
    table.see("a", 0, 1)
    table.see("a", 0)
    table.see("b", 0, now=5.0)
    assert table.asked().avoid == {"a"}
    assert table.map.due == 5.0 + JOINING_S
    table.map.settle(5.0 + JOINING_S)
    assert table.asked().avoid == {"a", "b"}
    assert table.map.due == float("inf")


def test_a_place_that_has_come_back_joins_anew() -> None:
    table = Table()
    table.see("a", 0, 1)
    table.see("a")
    assert table.map.places == {}
    table.see("a", 0, life=1)
    assert table.asked().avoid == NOTHING


def test_doubles_and_what_no_selector_names_are_told_apart_by_their_heads() -> None:
    table = Table()
    table.see("a", 0, 1)
    table.nodes["a0.x"] = Node("a0.x", alive=True, place="a", worker_id=0, pod_type="v4-16")
    table.map.take(table.nodes, {"a0.x"}, 0.0)
    table.see("x" * 64, 0, 1)
    asked = table.asked()
    assert (asked.avoid, asked.avoid_nodes) == (NOTHING, {"a0.0", "a0.x", f"{'x' * 64}0.0"})


def test_a_reservation_that_waits_is_out_of_date_when_a_place_it_keeps_from_is_whole_and_free() -> None:
    table = Table()
    table.see("a", 0)
    table.see("b", 0, 1)
    asked = table.asked()
    table.map.hold("b", "slice-2")
    assert not table.map.outlook(NOTHING).is_missed_by(asked)
    table.see("a", 0, 1)
    assert table.map.outlook(NOTHING).is_missed_by(asked)
    assert not table.map.outlook(frozenset("a")).is_missed_by(asked)
    table.map.hold("a", "slice-3")
    assert not table.map.outlook(NOTHING).is_missed_by(asked)


def test_it_is_out_of_date_when_a_place_it_keeps_from_by_its_heads_is_whole_and_free() -> None:
    table = Table()
    table.see("a", 0, 1)
    table.nodes["a0.x"] = Node("a0.x", alive=True, place="a", worker_id=0, pod_type="v4-16")
    table.map.take(table.nodes, {"a0.x"}, 0.0)
    asked = table.asked()
    assert not table.map.outlook(NOTHING).is_missed_by(asked)
    del table.nodes["a0.x"]
    table.map.take(table.nodes, {"a0.x"}, 0.0)
    assert table.map.outlook(NOTHING).is_missed_by(asked)
    assert not table.map.outlook(NOTHING).is_missed_by(table.asked())


def test_it_is_out_of_date_when_it_may_land_where_it_must_not() -> None:
    table = Table()
    table.see("a", 0, 1)
    asked = table.asked()
    table.see("b", 0)
    assert not table.map.outlook(NOTHING).traps_it(asked), "the claim would be there already"
    table.see("a", 0)
    assert table.map.outlook(NOTHING).traps_it(asked)
    assert not table.map.outlook(NOTHING).traps_it(table.asked())
    table.see("a", 1)
    assert not table.map.outlook(NOTHING).traps_it(asked), "no head is there"


def test_only_the_last_to_take_a_place_leaves_it() -> None:
    table = Table()
    table.map.hold("a", "slice-1")
    table.map.give_up("a", "slice-1")
    assert (table.map.holders, table.map.owners) == ({"a": "slice-1"}, {})
    table.map.hold("a", "slice-2")
    table.map.leave("a", "slice-1")
    assert table.map.holders == table.map.owners == {"a": "slice-2"}


def test_only_what_changed_is_judged_anew() -> None:
    table = Table()
    for number in range(50):
        table.see(f"p{number}", 0, 1)
    before = dict(table.map.places)
    version = table.map.version
    table.map.take(table.nodes, (), 1.0)
    assert table.map.version == version
    table.see("p7", 0)
    changed = [name for name, place in table.map.places.items() if place is not before[name]]
    assert (changed, table.map.version) == (["p7"], version + 1)


def test_kinds_of_accelerators_matter_where_there_are_several() -> None:
    places = PlaceMap(GpuSlice(2, 8))
    has = {"GPU": 8.0, "CPU": 8.0}
    nodes = {n: Node(n, alive=True, accelerator=kind, resources=has) for n, kind in (("a", "A100"), ("b", "A100"))}
    places.take(nodes, nodes, 0.0)
    assert (places.outlook(NOTHING).kinds, places.outlook(NOTHING).kind_of) == ({"A100": 2}, {})
    nodes["c"] = Node("c", alive=True, accelerator="H100", resources=has)
    places.take(nodes, {"c"}, 0.0)
    assert places.outlook(NOTHING).kind_of == {"a": "A100", "b": "A100", "c": "H100"}
    assert places.outlook(frozenset("c")).kind_of == {}


@given(
    st.lists(
        st.tuples(st.sampled_from(["A100", "H100", None, "gone", "hold", "leave", "avoid"]), st.sampled_from("abcd"))
    )
)
def test_what_is_kept_current_is_what_a_look_at_all_places_gives(steps: list[tuple[str | None, str]]) -> None:
    kept, nodes, avoided = PlaceMap(GpuSlice(2, 8)), {}, NOTHING
    for step, name in steps:
        if step == "gone":
            nodes.pop(name, None)
        elif step == "hold":
            kept.hold(name, "slice-1")
        elif step == "leave":
            kept.leave(name, "slice-1")
        elif step == "avoid":
            avoided ^= {name}
        else:
            resources = {"GPU": 8.0 if name < "d" else 4.0, "CPU": 8.0}
            nodes[name] = Node(name, alive=True, accelerator=step, resources=resources)
        kept.take(dict(nodes), {name}, 0.0)
        seen = kept.outlook(avoided)
        usable = {name: node.accelerator for name, node in nodes.items() if name not in avoided and name != "d"}
        kinds = {name: kind for name, kind in usable.items() if kind is not None}
        assert seen.free == usable.keys() - kept.holders.keys()
        assert seen.kinds == Counter(kinds.values())
        assert seen.kind_of == (kinds if len(set(kinds.values())) > 1 else {})
