"""How many slices are wanted: valid sizes and spares. Pure: imports nothing but the standard library."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import SupportsIndex


@dataclass(frozen=True, slots=True)
class Desired:
    """How many slices are wanted; replaced as a whole by `scale`."""

    #: Valid sizes, ascending; see `parse_sizes`.
    sizes: tuple[int, ...]
    #: Slices to keep warm beyond the size.
    spares: int = 0
    #: Counts the specs of one fleet.
    generation: int = 0

    def __post_init__(self) -> None:
        """Refuse what `parse_sizes` would not have made, and a wrong number of spares."""
        if self.sizes != parse_sizes(self.sizes):
            message = f"sizes must be ascending and without repeats, not {self.sizes}: use parse_sizes"
            raise ValueError(message)
        if _whole(self.spares, "spares") < 0:
            message = f"spares must be 0 or more, not {self.spares}"
            raise ValueError(message)

    @property
    def largest(self) -> int:
        """The size to aim for."""
        return self.sizes[-1]

    @property
    def smallest(self) -> int:
        """The size below which nothing can run."""
        return self.sizes[0]

    @property
    def target(self) -> int:
        """Live slices to aim for: the largest size and the spares."""
        return self.largest + self.spares

    def valid_size(self, available: int) -> int:
        """Return the largest valid size that `available` slices suffice for; 0 if there is none."""
        return max((size for size in self.sizes if size <= available), default=0)


def parse_sizes(slices: object) -> tuple[int, ...]:
    """Turn a number or several valid sizes into ascending sizes without repeats.

    Raises:
        ValueError: it is empty, or something in it is not a whole number above zero.

    """
    if isinstance(slices, Iterable) and not isinstance(slices, str | bytes | Mapping):
        sizes = sorted({_whole(size, "slices") for size in slices})
        if not sizes:
            message = "slices is empty: give at least one size, for example 2 or [2, 4]"
            raise ValueError(message)
    else:
        sizes = [_whole(slices, "slices")]
    if sizes[0] <= 0:
        message = f"slices must be 1 or more, not {sizes[0]}; to let go of everything, close the fleet"
        raise ValueError(message)
    return tuple(sizes)


def _whole(value: object, name: str) -> int:
    """Return a whole number as an int; numpy's count, bools do not."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        return operator.index(value)
    message = f"{name} must be a whole number, or a list of them, not {value!r}"
    raise ValueError(message)
