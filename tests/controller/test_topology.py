from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sliceform.controller.model.topology import describe, known_pod_types

pod_types = st.sampled_from(known_pod_types())
_NO_TOPOLOGY = "is not a topology: write the edges of the box of chips, as in 2x4 or 4x4x8"


@pytest.mark.parametrize(
    ("pod_type", "hosts", "chips_per_host", "topology", "accelerator_type"),
    [
        ("v2-8", 1, 4, "2x2", "TPU-V2"),
        ("v3-32", 4, 4, "4x4", "TPU-V3"),
        ("v3-2048", 256, 4, "32x32", "TPU-V3"),
        ("v4-8", 1, 4, "2x2x1", "TPU-V4"),
        ("v4-16", 2, 4, "2x2x2", "TPU-V4"),
        ("v4-1024", 128, 4, "8x8x8", "TPU-V4"),
        ("v4-1536", 192, 4, "8x8x12", "TPU-V4"),
        ("v4-4096", 512, 4, "8x16x16", "TPU-V4"),
        ("v5litepod-1", 1, 1, "1x1", "TPU-V5LITEPOD"),
        ("v5litepod-8", 1, 8, "2x4", "TPU-V5LITEPOD"),
        ("v5litepod-16", 4, 4, "4x4", "TPU-V5LITEPOD"),
        ("v5p-8", 1, 4, "2x2x1", "TPU-V5P"),
        ("v5p-12288", 1536, 4, "16x16x24", "TPU-V5P"),
        ("v6e-4", 1, 4, "2x2", "TPU-V6E"),
        ("v6e-8", 1, 8, "2x4", "TPU-V6E"),
        ("v6e-256", 64, 4, "16x16", "TPU-V6E"),
        ("v5p-17920", 2240, 4, "16x20x28", "TPU-V5P"),
        ("v7x-16", 2, 4, "2x2x2", "TPU-V7X"),
        ("v7x-384", 48, 4, "4x4x12", "TPU-V7X"),
        ("v7x-18432", 2304, 4, "16x24x24", "TPU-V7X"),
    ],
)
def test_published_pod_types(pod_type, hosts, chips_per_host, topology, accelerator_type):
    found = describe(pod_type)
    assert (found.hosts, found.chips_per_host) == (hosts, chips_per_host)
    assert (found.topology, found.accelerator_type) == (topology, accelerator_type)


@given(pod_types)
def test_numbers_of_a_pod_type_agree(pod_type):
    found = describe(pod_type)
    generation, _, size = pod_type.rpartition("-")
    chips = prod(int(edge) for edge in found.topology.split("x"))
    assert found.pod_type == pod_type
    assert found.generation == generation
    assert found.hosts * found.chips_per_host == found.chips == chips
    assert int(size) == chips * (1 if generation in {"v5litepod", "v6e"} else 2)
    assert found.hosts == 1 or found.chips_per_host == 4


@pytest.mark.parametrize(
    ("pod_type", "topology", "chips_per_host", "expected"),
    [
        ("v4-128", "2x4x8", None, (16, 4, "2x4x8")),
        ("v6e-8", None, 4, (2, 4, "2x4")),
        ("v5litepod-8", "4X2 ", 4, (2, 4, "2x4")),
        ("v5litepod-4", None, 1, (4, 1, "2x2")),
        ("v9x-64", "4x2x4", None, (8, 4, "2x4x4")),
        ("v9x-6", "2x3", 3, (2, 3, "2x3")),
        ("v9x-64", "4x4x4", 8, (8, 8, "4x4x4")),
        ("v9e-1", "1x1", None, (1, 1, "1x1")),
        ("TPU9x-64", "2x4x4", None, (8, 4, "2x4x4")),
    ],
)
def test_what_is_said_besides_the_pod_type(pod_type, topology, chips_per_host, expected):
    """Other topologies and machines of known pod types, and pod types that the catalogue does not know."""
    found = describe(pod_type, topology, chips_per_host)
    assert (found.hosts, found.chips_per_host, found.topology) == expected
    assert found.pod_type == pod_type.lower().replace("tpu", "v")


@pytest.mark.parametrize(
    ("pod_type", "topology", "chips_per_host", "says"),
    [
        ("v4-16", "2x2x4", None, "topology 2x2x4 has 16 chips, which is a v4-32, not a v4-16"),
        ("v9x-16", "2x2x4", 5, "16 chips (2x2x4) cannot be spread over hosts of 5 chips each"),
        ("v9x-30", "2x4x4", None, "topology 2x4x4 has 32 chips, which is a v9x-32 or v9x-64, not a v9x-30"),
        (
            "v9x-6",
            "2x3",
            None,
            "6 chips (2x3) cannot be spread over hosts of 4 chips each; say chips_per_host of v9x-6",
        ),
        ("v5e-8", "2x4", None, "write v5litepod-8 for v5e-8, as Ray does"),
        ("v6e-8", "2x2x2", None, "a topology of v6e has as many edges as 1x1, not those of 2x2x2"),
        ("v4-16", "2x4", None, "a topology of v4 has as many edges as 2x2x1, not those of 2x4"),
        (
            "v4-16",
            "2x2x2x1",
            None,
            "'2x2x2x1' is not a topology: write the edges of the box of chips, as in 2x4 or 4x4x8",
        ),
        ("v4-16", "0x4", None, "'0x4' is not a topology: write the edges of the box of chips, as in 2x4 or 4x4x8"),
        ("v4-16", None, 0, "8 chips (2x2x2) cannot be spread over hosts of 0 chips each"),
        ("big", "2x2", None, "big is not a TPU pod type: write a generation and a size, as in v4-16"),
    ],
)
def test_what_contradicts_the_pod_type_is_refused(pod_type, topology, chips_per_host, says):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        describe(pod_type, topology, chips_per_host)
    assert str(caught.value) == says


def test_names_are_unique():
    assert len(set(known_pod_types())) == len(known_pod_types())


@pytest.mark.parametrize("written", ["V4-16", " v4-16 ", "TPU-v4-16"])
def test_spelling_is_normalised(written):
    assert describe(written).pod_type == "v4-16"


def test_ironwood_is_spelled_as_in_ray():
    assert describe("tpu7x-8").pod_type == "v7x-8"


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("v4-15", "v4-8, v4-16"),
        ("v4-1", "v4-8"),
        ("v4-999999", "v4-8192"),
        ("v5e-16", "v5litepod-16"),
        ("v5lite-5", "v5litepod-4, v5litepod-8"),
        ("v4", "v4-8, v4-16, v4-32"),
    ],
)
def test_wrong_pod_type_names_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match="is not a TPU pod type") as caught:
        describe(wrong)
    told = f"{wrong} is not a TPU pod type that is known (say topology= of one that is newer); nearest: {nearest}"
    assert str(caught.value) == told


@given(
    st.text(max_size=20)
    | st.from_regex(r"v[1-9](e|p|x|litepod)?-[0-9]{1,6}", fullmatch=True, alphabet=st.characters(codec="ascii"))
)
def test_every_wrong_pod_type_names_valid_ones(written):
    try:
        describe(written)
    except ValueError as error:
        named = str(error).rpartition("nearest: ")[2].split(", ")
        assert named
        assert set(named) <= set(known_pod_types())


@given(st.sampled_from(["v2", "v3", "v4", "v5litepod", "v5p", "v6e", "v7x"]), st.integers(0, 20_000))
def test_neighbours_enclose_the_size(generation, size):
    sizes = [int(name.split("-")[1]) for name in known_pod_types() if name.startswith(f"{generation}-")]
    if size in sizes:
        return
    with pytest.raises(ValueError, match="nearest") as caught:
        describe(f"{generation}-{size}")
    named = [int(name.split("-")[1]) for name in str(caught.value).rpartition("nearest: ")[2].split(", ")]
    below = [value for value in sizes if value < size][-1:]
    above = [value for value in sizes if value > size][:1]
    assert named == below + above


def test_agrees_with_ray():
    tpu = pytest.importorskip("ray._private.accelerators.tpu")
    for pod_type in known_pod_types():
        found = describe(pod_type)
        assert tpu.get_num_tpu_visible_chips_per_host(pod_type) == found.chips_per_host
        assert tpu.get_total_chips_from_accelerator_type(pod_type) == found.chips
        inferred = tpu.infer_tpu_pod_type_from_topology(found.topology, found.accelerator_type)
        assert inferred == pod_type
        assert tpu.normalize_tpu_accelerator_type(pod_type) == pod_type
