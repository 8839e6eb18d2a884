"""Why a GPU or CPU slice is not there, from a look at the cluster; needs none."""

import pytest

from sliceform.controller import CpuSlice, GpuSlice
from sliceform.controller.model.events import Node
from sliceform.controller.ray_backend.explain import Cluster, explain


def cluster(*nodes, free=None, held=None, labels=None):
    """Nodes with these resources, called `n0`, `n1`...; all of it free unless said otherwise."""
    rows = {
        f"n{i}": Node(f"n{i}", alive=True, address="10.0.0.1", resources=has, labels=(labels or {}).get(f"n{i}", {}))
        for i, has in enumerate(nodes)
    }
    all_free = {name: row.resources for name, row in rows.items()}
    return Cluster(rows, held or {}, {**all_free, **(free or {})})


def findings(seen, shape, avoid=()):
    return [
        (found.code, found.text) for found in explain(seen, None, shape, None, dict.fromkeys(avoid, "ordered: odd"))
    ]


LAPTOP = cluster({"CPU": 2.0, "memory": 1e9})
ONLY_WAITING = [("waiting", "Ray is placing its reservation")]


@pytest.mark.parametrize("shape", [CpuSlice(1), CpuSlice(2), CpuSlice(20, 0.1), CpuSlice(1, spread=True)])
def test_what_fits_only_waits(shape):
    assert findings(LAPTOP, shape) == ONLY_WAITING


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (CpuSlice(3), "3 hosts with 1 CPU are needed, the living nodes can hold 2"),
        (CpuSlice(1, 4), "1 hosts with 4 CPU are needed, the living nodes can hold 0"),
        (CpuSlice(2, spread=True), "2 living nodes with 1 CPU are needed, 1 are there"),
        (GpuSlice(1, 2), "1 living nodes with 1 CPU, 2 GPU are needed, 0 are there"),
        (CpuSlice(1, resources_per_host={"disk": 1}), "1 hosts with 1 CPU, 1 disk are needed"),
        (CpuSlice(1, label_selector={"pool": "a"}), "no living node has the labels {'pool': 'a'}"),
        (CpuSlice(1, label_selector={"pool": "in(a,b)"}), "no living node has the labels {'pool': 'in(a,b)'}"),
    ],
)
def test_what_cannot_fit_is_told(shape, says):
    (code, text), *more = findings(LAPTOP, shape)
    assert code == "host_missing"
    assert text.startswith(says)
    assert {code for code, _ in more} <= {"place_unfit"}


def test_only_nodes_with_the_labels_count():
    pool = cluster({"GPU": 8, "CPU": 8}, {"GPU": 8, "CPU": 8}, labels={"n1": {"pool": "a"}})
    assert findings(pool, GpuSlice(1, 8, label_selector={"pool": "a"})) == ONLY_WAITING
    assert findings(pool, GpuSlice(1, 8, label_selector={"pool": "!a"})) == ONLY_WAITING
    ((code, text),) = findings(pool, GpuSlice(2, 8, label_selector={"pool": "a"}))
    assert (code, text) == (
        "host_missing",
        "2 living nodes with 1 CPU, 8 GPU and the labels {'pool': 'a'} are needed, 1 are there",
    )


def test_who_holds_what_is_lacking():
    held = {"n0": (("theirs", frozenset({"CPU"})),)}
    busy = cluster({"CPU": 2.0}, free={"n0": {"CPU": 1.0}}, held=held)
    assert findings(busy, CpuSlice(1)) == ONLY_WAITING
    ((code, text),) = findings(busy, CpuSlice(2))
    assert code == "chips_held"
    assert "too little CPU free: held by placement group theirs" in text


def test_one_busy_node_does_not_matter_where_another_has_room():
    gpus = {"GPU": 8, "CPU": 8}
    assert findings(cluster(gpus, gpus, free={"n0": {"GPU": 0, "CPU": 8}}), GpuSlice(1, 8)) == ONLY_WAITING
    codes = [code for code, _ in findings(cluster(gpus, gpus, free={"n0": {"GPU": 0, "CPU": 8}}), GpuSlice(2, 8))]
    assert codes == ["chips_held"]


def test_nearly_enough_is_not_enough():
    small = cluster({"CPU": 1.0, "memory": 99_996_500.0})
    codes = [code for code, _ in findings(small, CpuSlice(1, memory_per_host=100_000_000))]
    assert codes == ["host_missing", "place_unfit"]
    assert findings(cluster({"CPU": 0.3}), CpuSlice(3, 0.1)) == ONLY_WAITING


def test_an_avoided_node_does_not_matter_where_others_have_room():
    gpus = {"GPU": 8, "CPU": 8}
    assert findings(cluster(gpus, gpus, gpus), GpuSlice(2, 8), avoid=["n1"]) == ONLY_WAITING


def test_avoided_nodes_are_named():
    gpus = {"GPU": 8, "CPU": 8}
    found = findings(cluster(gpus, gpus), GpuSlice(2, 8), avoid=["n1"])
    assert found == [("avoided", "node n1 is not used now: ordered: odd")]
