"""TPU pod types and what follows from them, or is said besides: hosts, chips per host and topology.

One pod type may come in several topologies, and on machines of several sizes. The catalogue has the usual ones; a pod
type that is newer serves as well, once its topology is said. Facts are those of the Google Cloud TPU documentation
(accelerator types and topologies of each generation); names are spelled as Ray spells them in the label
`ray.io/tpu-pod-type` and in the resource `TPU-<pod type>-head`. The number in a pod type counts TensorCores, two per
chip, for v2, v3, v4, v5p and v7x, and chips for v5litepod and v6e.

Pure: imports nothing but the standard library.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import prod
from types import MappingProxyType

_CHIPS_PER_HOST = 4
_CHIPS_PER_CUBE = 64
_LARGEST_SINGLE_HOST = 8

#: Generations whose pod types count chips; all others count TensorCores.
_COUNTED_IN_CHIPS = frozenset({"v5litepod", "v6e"})
_CORES_PER_CHIP = 2

#: Topologies in ascending order; the first are those up to one cube of 4x4x4 chips.
_TORUS = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_TOPOLOGIES: Mapping[str, tuple[str, ...]] = {
    "v2": ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v3": ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16", "16x32", "32x32"),
    "v4": _TORUS,
    "v5litepod": _FLAT,
    "v5p": _TORUS,
    "v6e": _FLAT,
    "v7x": _TORUS,
}
#: Generations whose larger slices are made of whole cubes, with the number of cubes of a whole pod (Google Cloud's
#: pages on v4, v5p and Ironwood: 4,096, 8,960 and 9,216 chips). Which of them are offered Google Cloud decides.
_MOST_CUBES: Mapping[str, int] = {"v4": 64, "v5p": 140, "v7x": 144}

#: What people write for a generation that Google and Ray call otherwise.
_ALIASES: Mapping[str, str] = {
    "v5e": "v5litepod",
    "v5lite": "v5litepod",
    "v6": "v6e",
    "v7": "v7x",
    "v5": "v5p",
}
_PATTERN = re.compile(r"(?P<generation>[a-z]+\d+[a-z]*)-(?P<size>\d+)")
_TPU_PREFIX = re.compile(r"^tpu-?v?")
_TOPOLOGY = re.compile(r"[1-9]\d*(x[1-9]\d*){1,2}")


@dataclass(frozen=True, slots=True)
class PodType:
    """One TPU pod type and all that the controller derives from it."""

    #: As in Ray's label `ray.io/tpu-pod-type`, for example `v4-16`.
    pod_type: str
    #: For example `v4`.
    generation: str
    hosts: int
    chips_per_host: int
    #: For example `2x2x2`.
    topology: str
    #: As in Ray's label and option `accelerator_type`, for example `TPU-V4`.
    accelerator_type: str

    @property
    def chips(self) -> int:
        """Chips of the whole slice."""
        return self.hosts * self.chips_per_host


@lru_cache(maxsize=256, typed=True)
def describe(pod_type: str, topology: str | None = None, chips_per_host: int | None = None) -> PodType:
    """Look a pod type up; case and the prefix of `tpu7x-8` are normalised as Ray does.

    Args:
        pod_type: for example `v4-16`.
        topology: how its chips are joined, for example `2x2x2`; None = as is usual for the pod type. With it the pod
            type may be one that the catalogue does not know.
        chips_per_host: None = as is usual for the pod type, else 4, or all where there are fewer.

    Raises:
        ValueError: there is no such pod type, and no topology that says what it is; the message names the nearest. Or
            what is said besides contradicts it.

    """
    name = _TPU_PREFIX.sub("v", pod_type.strip().lower())
    found = _catalog().get(name)
    if found is None and topology is None:
        nearest = ", ".join(_nearest(name))
        name = pod_type or "an empty name"
        message = f"{name} is not a TPU pod type that is known (say topology= of one that is newer); nearest: {nearest}"
        raise ValueError(message)
    if topology is not None and (found is None or not same_topology(topology, found.topology)):
        found = _joined(name, topology.strip().lower(), chips_per_host)
    assert found is not None
    if chips_per_host is None or chips_per_host == found.chips_per_host:
        return found
    if chips_per_host < 1 or found.chips % chips_per_host:
        message = f"{found.chips} chips ({found.topology}) cannot be spread over hosts of {chips_per_host} chips each"
        raise ValueError(message)
    return replace(found, hosts=found.chips // chips_per_host, chips_per_host=chips_per_host)


def same_topology(one: str, other: str) -> bool:
    """Whether two topologies are the same box of chips, whichever edge is named first."""
    return sorted(one.strip().lower().split("x")) == sorted(other.strip().lower().split("x"))


def is_known(pod_type: str) -> bool:
    """Whether the catalogue has a pod type, in Ray's spelling."""
    return pod_type in _catalog()


def known_pod_types() -> tuple[str, ...]:
    """All pod types, by generation and then by size."""
    return tuple(_catalog())


@cache
def _catalog() -> Mapping[str, PodType]:
    return MappingProxyType(
        {entry.pod_type: entry for generation in _TOPOLOGIES for entry in _of_generation(generation)}
    )


@cache
def _sizes(generation: str) -> tuple[int, ...]:
    return tuple(int(entry.pod_type.rpartition("-")[2]) for entry in _of_generation(generation))


def _of_generation(generation: str) -> Iterator[PodType]:
    for topology in _TOPOLOGIES[generation]:
        yield _entry(generation, topology)
    for cubes in range(2, _MOST_CUBES.get(generation, 1) + 1):
        yield _entry(generation, "x".join(str(4 * edge) for edge in _most_compact(cubes)))


def _joined(name: str, topology: str, chips_per_host: int | None) -> PodType:
    """Make an entry of a pod type whose topology is another than the usual one, or that the catalogue does not know.

    Raises:
        ValueError: the two are none, or do not have the same number of chips.

    """
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise ValueError(f"{name or 'an empty name'} is not a TPU pod type: write a generation and a size, as in v4-16")
    if not _TOPOLOGY.fullmatch(topology):
        raise ValueError(f"{topology!r} is not a topology: write the edges of the box of chips, as in 2x4 or 4x4x8")
    generation, size, chips = match["generation"], int(match["size"]), _chips(topology)
    if generation in _ALIASES:
        raise ValueError(f"write {_ALIASES[generation]}-{size} for {name}, as Ray does")
    a_chip = [1, _CORES_PER_CHIP]
    if generation in _TOPOLOGIES:
        a_chip = [1 if generation in _COUNTED_IN_CHIPS else _CORES_PER_CHIP]
        usual_edges = _TOPOLOGIES[generation][0]
        if topology.count("x") != usual_edges.count("x"):
            raise ValueError(f"a topology of {generation} has as many edges as {usual_edges}, not those of {topology}")
    if size not in [chips * count for count in a_chip]:
        sizes = " or ".join(f"{generation}-{chips * count}" for count in a_chip)
        raise ValueError(f"topology {topology} has {chips} chips, which is a {sizes}, not a {name}")
    usual = _catalog().get(name)
    each = chips_per_host or (usual.chips_per_host if usual else min(chips, _CHIPS_PER_HOST))
    if each < 1 or chips % each:
        said = "" if chips_per_host else f"; say chips_per_host of {name}"
        raise ValueError(f"{chips} chips ({topology}) cannot be spread over hosts of {each} chips each{said}")
    # The same box, whichever edge is named first, is the same shape.
    in_order = "x".join(sorted(topology.split("x"), key=int))
    return _pod_type(generation, size, in_order, each)


def _chips(topology: str) -> int:
    return prod(int(edge) for edge in topology.split("x"))


def _entry(generation: str, topology: str) -> PodType:
    chips = _chips(topology)
    if generation not in _COUNTED_IN_CHIPS:
        return _pod_type(generation, chips * _CORES_PER_CHIP, topology, _CHIPS_PER_HOST)
    return _pod_type(generation, chips, topology, chips if chips <= _LARGEST_SINGLE_HOST else _CHIPS_PER_HOST)


def _pod_type(generation: str, size: int, topology: str, chips_per_host: int) -> PodType:
    return PodType(
        pod_type=f"{generation}-{size}",
        generation=generation,
        hosts=_chips(topology) // chips_per_host,
        chips_per_host=chips_per_host,
        topology=topology,
        accelerator_type=f"TPU-{generation.upper()}",
    )


def _most_compact(cubes: int) -> tuple[int, int, int]:
    """Edges of the default box of that many cubes, the one most like a cube, ascending: 12 gives (2, 2, 3)."""
    boxes = (
        (a, b, cubes // a // b)
        for a in range(1, cubes + 1)
        for b in range(a, cubes // a + 1)
        if cubes % (a * b) == 0 and cubes // a // b >= b
    )
    return min(boxes, key=sum)


def _nearest(name: str) -> tuple[str, ...]:
    """Valid names that the writer of a wrong one may have meant; never empty."""
    match = _PATTERN.fullmatch(name)
    if match is None and _ALIASES.get(name, name) in _TOPOLOGIES:
        generation = _ALIASES.get(name, name)
        return tuple(f"{generation}-{size}" for size in _sizes(generation)[:3])
    if match is None:
        close = difflib.get_close_matches(name, known_pod_types(), n=3, cutoff=0.5)
        return tuple(close) or tuple(f"{generation}-{_sizes(generation)[0]}" for generation in _TOPOLOGIES)
    written, size = match["generation"], int(match["size"])
    generation = _ALIASES.get(written, written)
    if generation in _TOPOLOGIES:
        return _neighbours(generation, size)
    close = difflib.get_close_matches(generation, _TOPOLOGIES, n=2, cutoff=0.3) or list(_TOPOLOGIES)
    return tuple(_neighbours(candidate, size)[-1] for candidate in close)


def _neighbours(generation: str, size: int) -> tuple[str, ...]:
    """The pod type of that size, or else the next smaller and the next larger one."""
    sizes = _sizes(generation)
    at = bisect_left(sizes, size)
    exact = at < len(sizes) and sizes[at] == size
    around = sizes[at if exact else max(at - 1, 0) : at + 1]
    return tuple(f"{generation}-{value}" for value in around)
