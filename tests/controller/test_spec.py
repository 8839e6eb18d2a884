import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sliceform.controller.model.shapes import CpuSlice, Devices, GpuSlice, TpuSlice
from sliceform.controller.model.sizes import Desired, parse_sizes
from sliceform.controller.model.topology import describe, known_pod_types

sizes = st.sets(st.integers(1, 1000), min_size=1).map(lambda found: tuple(sorted(found)))

resources = st.none() | st.dictionaries(
    st.sampled_from(["disk", "licence", "ssd"]), st.integers(1, 9) | st.floats(0.01, 1), max_size=3
)
common = {
    "cpus_per_host": st.integers(1, 64) | st.floats(0.01, 64),
    "memory_per_host": st.none() | st.integers(1, 2**40),
    "resources_per_host": resources,
}
conditions = st.sampled_from(["a", "!a", "in(a,b)", "!in(a, b)"])
labels = st.none() | st.dictionaries(st.sampled_from(["zone", "example.com/pool"]), conditions, max_size=2)
shapes = (
    st.builds(TpuSlice, st.sampled_from(known_pod_types()), label_selector=labels, **common)
    | st.builds(TpuSlice, st.just("v6e-8"), chips_per_host=st.sampled_from([None, 1, 2, 4, 8]), **common)
    | st.builds(TpuSlice, st.just("v9x-128"), topology=st.sampled_from(["4x4x4", "2x4x8"]), **common)
    | st.builds(GpuSlice, st.integers(1, 64), st.integers(1, 8), label_selector=labels, **common)
    | st.builds(CpuSlice, st.integers(1, 64), spread=st.booleans(), label_selector=labels, **common)
)


def test_tpu_slice_follows_from_its_pod_type():
    shape = TpuSlice("v4-16")
    assert (shape.kind, shape.hosts, shape.chips_per_host, shape.topology) == ("tpu", 2, 4, "2x2x2")
    assert shape.head_resource == "TPU-v4-16-head"
    assert shape.devices_per_host == Devices("TPU", 4)
    assert shape.bundle == {"CPU": 1, "TPU": 4}
    assert shape.exclusive_nodes
    assert shape.selector == {}


def test_tpu_slice_of_other_machines():
    shape = TpuSlice("v6e-8", chips_per_host=4, label_selector={"pool": "spot"})
    assert (shape.hosts, shape.chips_per_host, shape.topology) == (2, 4, "2x4")
    assert shape.bundle == {"CPU": 1, "TPU": 4}
    assert shape.selector == {"pool": "spot"}
    assert TpuSlice("v4-16", topology="2x2x2", chips_per_host=4) == TpuSlice("v4-16")


def test_one_box_is_one_shape_and_a_slip_spoils_nothing():
    assert TpuSlice("v4-128", topology="8x4x2") == TpuSlice("v4-128", topology="2x4x8")
    with pytest.raises(ValidationError, match="valid integer"):
        TpuSlice("v6e-8", chips_per_host=True)
    assert TpuSlice("v6e-8", chips_per_host=1).hosts == 8
    with pytest.raises(ValidationError, match="valid dictionary"):
        TpuSlice.model_validate("v4-16")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (TpuSlice("V4-16"), "TpuSlice(v4-16)"),
        (TpuSlice("v6e-8", chips_per_host=4), "TpuSlice(v6e-8, topology=2x4, chips_per_host=4)"),
        (TpuSlice("v9x-64", topology="2x4x4"), "TpuSlice(v9x-64, topology=2x4x4, chips_per_host=4)"),
        (TpuSlice("v4-16", cpus_per_host=4), "TpuSlice(v4-16, cpus_per_host=4)"),
        (GpuSlice(2, 8), "GpuSlice(2, 8)"),
        (CpuSlice(), "CpuSlice()"),
    ],
)
def test_a_shape_is_named_by_what_is_not_as_usual(shape, said):
    assert str(shape) == said


def test_everything_asked_for_is_in_the_bundle():
    shape = TpuSlice("v6e-8", cpus_per_host=2, memory_per_host=2**30, resources_per_host={"disk": 0.5})
    assert shape.bundle == {"CPU": 2, "TPU": 8, "memory": 2**30, "disk": 0.5}


def test_no_cpus_leaves_no_entry():
    assert TpuSlice("v4-8", cpus_per_host=0).bundle == {"TPU": 4}


def test_gpu_slice():
    shape = GpuSlice(4, 8, label_selector={"pool": "a"})
    assert (shape.kind, shape.hosts, shape.devices_per_host) == ("gpu", 4, Devices("GPU", 8))
    assert shape.bundle == {"CPU": 1, "GPU": 8}
    assert shape.strategy == "STRICT_SPREAD"
    assert shape.exclusive_nodes
    assert shape.selector == {"pool": "a"}


def test_cpu_slice_shares_nodes_unless_spread():
    packed, spread = CpuSlice(2), CpuSlice(2, spread=True)
    assert (packed.kind, packed.devices_per_host, packed.bundle) == (
        "cpu",
        Devices(None, 0),
        {"CPU": 1},
    )
    assert (packed.strategy, packed.exclusive_nodes) == ("PACK", False)
    assert (spread.strategy, spread.exclusive_nodes) == ("STRICT_SPREAD", True)
    assert packed.selector == {}


def test_pod_type_is_kept_in_the_spelling_of_the_cluster():
    assert TpuSlice("V4-16") == TpuSlice(pod_type="v4-16")
    assert TpuSlice("tpu7x-8").head_resource == "TPU-v7x-8-head"


@given(shapes)
def test_shapes_are_values(shape):
    for twin in (copy.deepcopy(shape), pickle.loads(pickle.dumps(shape)), shape.model_copy()):
        assert twin == shape
        assert hash(twin) == hash(shape)
    assert type(shape).model_validate(shape.model_dump()) == shape
    assert type(shape).model_validate_json(shape.model_dump_json()) == shape


@given(shapes)
def test_bundles_hold_only_positive_amounts(shape):
    assert shape.bundle
    assert all(amount > 0 for amount in shape.bundle.values())
    devices = shape.devices_per_host
    if devices.name is not None:
        assert shape.bundle[devices.name] == devices.count
    if isinstance(shape, TpuSlice):
        assert shape.hosts == describe(shape.pod_type, shape.topology, shape.chips_per_host).hosts


def test_shapes_cannot_be_changed():
    shape = GpuSlice(2, resources_per_host={"disk": 1}, label_selector={"pool": "a"})
    with pytest.raises(ValidationError, match="frozen"):
        shape.hosts = 3
    with pytest.raises(TypeError, match="make a new one"):
        shape.resources_per_host["disk"] = 2
    with pytest.raises(TypeError, match="make a new one"):
        shape.label_selector.update(pool="b")
    shape.bundle["CPU"] = 99
    assert shape.bundle["CPU"] == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TpuSlice("v4-15"), "nearest: v4-8, v4-16"),
        (lambda: TpuSlice(16), "valid string"),
        (lambda: TpuSlice("v4-16", chips=4), "chips"),
        (lambda: TpuSlice("v4-16", cpus_per_host=-1), "greater than or equal to 0"),
        (lambda: TpuSlice("v4-16", cpus_per_host=float("nan")), "finite"),
        (lambda: TpuSlice("v4-16", memory_per_host=0), "greater than 0"),
        (lambda: TpuSlice("v4-16", memory_per_host="1GB"), "valid integer"),
        (lambda: TpuSlice("v4-16", resources_per_host={"TPU": 4}), "the pod type of a TpuSlice"),
        (lambda: CpuSlice(resources_per_host={"CPU": 4}), "cpus_per_host"),
        (lambda: CpuSlice(resources_per_host={"disk": 0}), "disk must be more than 0"),
        (lambda: CpuSlice(cpus_per_host=0), "ask for something"),
        (lambda: CpuSlice(0), "greater than 0"),
        (lambda: CpuSlice(hosts=True), "valid integer"),
        (lambda: CpuSlice(spread="maybe"), "valid boolean"),
        (lambda: TpuSlice("v4-16", label_selector={"ray.io/tpu-worker-id": "0"}), "host i is always worker i"),
        (lambda: TpuSlice("v4-16", label_selector={"ray.io/tpu-topology": "2x2x2"}), "say topology="),
        (lambda: TpuSlice("v4-16", topology=222), "valid string"),
        (lambda: TpuSlice("v4-16", chips_per_host="4"), "valid integer"),
        (lambda: GpuSlice(2, 0), "greater than 0"),
        (lambda: GpuSlice(1, 0.5), "valid integer"),
        (lambda: GpuSlice(2.5), "valid integer"),
        (lambda: GpuSlice(2, label_selector={"pool": 1}), "valid string"),
        (lambda: GpuSlice(2, label_selector={"pool": "in()"}), "no condition on label pool"),
        (lambda: CpuSlice(2, label_selector={"pool/": "a"}), "no name of a label"),
        (lambda: GpuSlice(2, node="x"), "node"),
    ],
)
def test_wrong_shapes_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        (1, (1,)),
        ([2, 4, 8], (2, 4, 8)),
        ((8, 2, 2), (2, 8)),
        ({4, 2}, (2, 4)),
        (range(1, 4), (1, 2, 3)),
        (np.int64(3), (3,)),
        (np.array([2, 4]), (2, 4)),
    ],
)
def test_sizes_are_sorted_and_folded(slices, expected):
    found = parse_sizes(slices)
    assert found == expected
    assert all(type(size) is int for size in found)


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        (0, "1 or more"),
        (-1, "not -1"),
        ([2, 0], "1 or more"),
        ([], "empty"),
        ((), "empty"),
        (True, "not True"),
        ([1, False], "not False"),
        (2.0, "not 2.0"),
        ("2", "not '2'"),
        ("", "not ''"),
        (b"2", "not b'2'"),
        ({2: "two"}, "whole number"),
        ([2, "4"], "not '4'"),
        ([[2]], "whole number"),
        (None, "not None"),
        (object(), "whole number"),
    ],
)
def test_wrong_sizes_are_refused(slices, says):
    with pytest.raises(ValueError, match="slices") as caught:
        parse_sizes(slices)
    assert says in str(caught.value)


@given(st.lists(st.integers(1, 1000), min_size=1))
def test_parsing_sizes_twice_changes_nothing(slices):
    once = parse_sizes(slices)
    assert parse_sizes(once) == once
    assert set(once) == set(slices)


@given(sizes, st.integers(0, 5), st.integers(0, 1100))
def test_valid_size_is_the_largest_that_fits(sizes, spares, available):
    desired = Desired(sizes, spares)
    found = desired.valid_size(available)
    assert found in {0, *sizes}
    assert found <= available
    assert not any(found < size <= available for size in sizes)
    assert (found == 0) == (available < desired.smallest)
    assert desired.target == desired.largest + spares == max(sizes) + spares


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Desired(()), "empty"),
        (lambda: Desired((4, 2)), "ascending"),
        (lambda: Desired((2, 2)), "ascending"),
        (lambda: Desired((0,)), "1 or more"),
        (lambda: Desired((2,), spares=-1), "spares must be 0 or more"),
        (lambda: Desired((2,), spares=1.5), "spares must be a whole number"),
    ],
)
def test_wrong_desires_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
