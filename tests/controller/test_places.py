"""What the node table makes of a place: whole, incomplete, double or unfit, and why."""

from typing import Any

import pytest

from sliceform.controller import CpuSlice, GpuSlice, TpuSlice
from sliceform.controller.model.events import Node
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.reconcile.decide.places import Place, PlaceState, judge, survey

SHAPE = TpuSlice("v4-16")
HAS = {"TPU": 4.0, "CPU": 4.0, "memory": float(2**30)}


def host(worker_id: int | None, node_id: str = "", **row: Any) -> Node:
    known = {"place": "a", "pod_type": "v4-16", "topology": "2x2x2", "resources": HAS, **row}
    return Node(node_id or f"n{worker_id}", alive=True, worker_id=worker_id, **known)


def place(*nodes: Node, shape: SliceShape = SHAPE, name: str = "a") -> Place:
    return survey({node.id: node for node in nodes}, shape)[name]


def test_a_host_for_every_worker_id_with_what_is_asked_is_whole() -> None:
    found = place(host(1), host(0))
    assert found == Place("a", PlaceState.WHOLE, nodes=("n0", "n1"), heads=("n0",))
    assert list(found.findings()) == []


@pytest.mark.parametrize(
    ("nodes", "state", "says"),
    [
        ([host(0)], "incomplete", "no living node has worker id 1"),
        ([host(1)], "incomplete", "no living node has worker id 0"),
        ([host(0), host(1, drain_epoch_s=0.0)], "incomplete", "worker 1 is being drained"),
        ([host(None, "x"), host(None, "y")], "incomplete", "worker id 0, 1; 2 of its nodes have none"),
        ([host(0), host(0, "x"), host(1)], "double", "2 nodes say that they are worker 0: n0, x"),
        ([host(0), host(0, "x")], "double", "2 nodes say that they are worker 0: n0, x; no living node has worker"),
        ([host(0), host(1), host(2)], "unfit", "has worker id 2, but a v4-16 slice has 2 hosts"),
        ([host(0), host(1, topology="2x4x1")], "unfit", "has topology 2x4x1, the shape asks 2x2x2"),
        ([host(0), host(1, resources={**HAS, "TPU": 2.0})], "unfit", "worker 1 has 2 TPU, the shape asks 4 TPU"),
        ([host(0), host(1, resources={**HAS, "TPU": 8.0})], "unfit", "worker 1 has 8 TPU, the shape asks 4 TPU"),
        ([host(n, resources={**HAS, "TPU": 6.0}) for n in (0, 1)], "unfit", "has 6 TPU, the shape asks 4 TPU"),
        ([host(0), host(1, resources={"TPU": 4.0})], "unfit", "worker 1 has 0 CPU, the shape asks 1 CPU"),
    ],
)
def test_what_it_lacks_is_told(nodes: list[Node], state: str, says: str) -> None:
    found = place(*nodes)
    assert (found.state, found.whole) == (state, False)
    assert says in found.detail
    assert all(says.partition(";")[0] in finding.text or "worker id" in finding.text for finding in found.findings())


@pytest.mark.parametrize("name", ["x" * 64, "a/b", "-a"])
def test_a_name_that_no_selector_carries_is_unfit(name: str) -> None:
    found = place(host(0, place=name), host(1, place=name), name=name)
    assert found.state is PlaceState.UNFIT
    assert f"no label selector of Ray can carry its name of {len(name)} characters" in found.detail
    assert found.heads == ("n0",)


def test_hosts_without_a_slice_name_are_places_that_do_not_fit() -> None:
    found = place(host(0, place=None), host(1, place=None), name="n0")
    assert (found.state, found.title) == (PlaceState.UNFIT, "node n0")
    assert "no label ray.io/tpu-slice-name" in found.detail


def test_a_pod_type_that_some_host_does_not_say_is_that_of_the_others() -> None:
    """Of a slice of which none says it, it is not known what it is: other TPU hosts are no part of it."""
    assert place(host(0), host(1, pod_type=None)).whole
    found = place(*(host(rank, pod_type=None) for rank in range(2)))
    assert (found.state, found.heads) == (PlaceState.UNFIT, ("n0",))
    assert "no pod type is said by n0, n1 (is TPU_ACCELERATOR_TYPE set there?)" in found.detail
    cpus = Node("c", alive=True, resources={"CPU": 8.0})
    assert survey({"c": cpus, "n": host(0, pod_type="v4-8")}, SHAPE) == {}


def test_chips_that_ray_counts_in_several_units_are_reserved_whole() -> None:
    found = place(*(host(worker_id, resources={**HAS, "TPU": 8.0}) for worker_id in (0, 1)))
    assert (found.state, found.units) == (PlaceState.WHOLE, 2)


def test_a_topology_is_the_same_whichever_edge_is_named_first() -> None:
    shape = TpuSlice("v4-32")
    hosts = [host(n, pod_type="v4-32", topology="4x2x2") for n in range(4)]
    assert (shape.topology, place(*hosts, shape=shape).state) == ("2x2x4", PlaceState.WHOLE)


def test_what_the_table_does_not_say_is_not_held_against_a_node() -> None:
    assert place(host(0, topology=None, resources={}), host(1, topology=None, resources={})).whole


def test_of_many_faults_some_are_told() -> None:
    shape = TpuSlice("v4-64")
    hosts = [host(n, pod_type="v4-64", topology=None, resources={"TPU": 4.0}) for n in range(8)]
    assert place(*hosts, shape=shape).detail.endswith("worker 3 has 0 CPU, the shape asks 1 CPU; and 4 faults more")


def test_memory_is_told_in_gibibytes() -> None:
    found = place(host(0), host(1), shape=TpuSlice("v4-16", memory_per_host=3 * 2**29))
    assert "worker 0 has 1 GiB of memory, the shape asks 1.5 GiB of memory" in found.detail


def test_other_pod_types_and_dead_nodes_are_no_part_of_it() -> None:
    dead = host(0, "x")._replace(alive=False)
    assert place(host(0), host(1), dead, host(1, "y", pod_type="v4-8", place="b")).nodes == ("n0", "n1")


def gpus(node_id: str, count: float, kind: str | None = None, **labels: str) -> Node:
    resources = {"GPU": count, "CPU": 8.0}
    return Node(node_id, alive=True, accelerator=kind, resources=resources, labels=labels)


def test_without_tpus_every_node_is_a_place() -> None:
    nodes = {"a": gpus("a", 8, "H100"), "b": gpus("b", 4), "c": gpus("c", 0), "d": gpus("d", 16)}
    found = survey(nodes, GpuSlice(2, 8))
    assert {name: place.state for name, place in found.items()} == {"a": "whole", "b": "unfit", "d": "whole"}
    assert found["a"].accelerator == "H100"
    assert found["b"].detail == "it has 4 GPU, the shape asks 8 GPU"
    assert list(survey(nodes, CpuSlice(1))) == ["a", "b", "c", "d"]


def test_nodes_that_do_not_meet_the_selector_are_no_places() -> None:
    nodes = {"a": gpus("a", 8, pool="x"), "b": gpus("b", 8)}
    assert list(survey(nodes, GpuSlice(1, 8, label_selector={"pool": "x"}))) == ["a"]


def test_slices_whose_hosts_do_not_all_meet_the_selector_are_not_whole() -> None:
    spot = TpuSlice("v4-16", label_selector={"pool": "spot"})
    hosts = [host(0, labels={"pool": "spot"}), host(1, labels={"pool": "spot"})]
    assert place(*hosts, shape=spot).whole
    assert place(hosts[0], host(1), shape=spot).missing == (1,)
    assert survey({node.id: node for node in (host(0), host(1))}, spot) == {}


def test_machines_of_another_size_than_is_asked_for_do_not_fit() -> None:
    """An eight-chip slice on two machines is not one on a single machine, nor the other way round."""
    one = Node("n", alive=True, place="a", worker_id=0, pod_type="v6e-8", resources={"TPU": 8.0, "CPU": 8.0})
    two = [one._replace(id=f"n{rank}", worker_id=rank, resources={"TPU": 4.0, "CPU": 8.0}) for rank in range(2)]
    halves = TpuSlice("v6e-8", chips_per_host=4)
    assert place(*two, shape=halves).whole
    assert place(one, shape=TpuSlice("v6e-8")).whole
    assert "worker 0 has 4 TPU, the shape asks 8 TPU" in place(*two, shape=TpuSlice("v6e-8")).detail
    assert "no living node has worker id 1" in place(one, shape=halves).detail


def test_judge_orders_its_nodes_by_worker_id() -> None:
    assert judge("a", [host(1), host(0)], SHAPE).nodes == ("n0", "n1")
