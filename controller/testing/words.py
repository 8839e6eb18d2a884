"""How the words of inputs and scenarios are read; each reader raises a `ValueError` that says what to write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sliceform.controller.model.shapes import CpuSlice, GpuSlice, SliceShape, TpuSlice
from sliceform.controller.testing.faulty import ANSWERS, Faults


def sizes(text: str) -> list[int]:
    """Read `2` or `2,4`."""
    return [int(size) for size in text.split(",")]


def sizes_or_all(text: str) -> list[int] | None:
    """Read sizes; None for `all`, the fleet's own."""
    return None if text == "all" else sizes(text)


def seconds(text: str) -> float:
    """Read a time, 0 or more."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text!r} is no time: write seconds, 0 or more")
    return value


def switch(text: str) -> bool:
    """Read `on` or `off`."""
    if text not in {"on", "off"}:
        raise ValueError(f"write on or off, not {text!r}")
    return text == "on"


def chance(name: str, text: str) -> float:
    """Read how likely a fault is: a field of `Faults`."""
    Faults(**{name: float(text)})
    return float(text)


def which(text: str) -> int | str:
    """Read an id, or a number."""
    return int(text) if text.isdecimal() else text


def names(text: str) -> list[str]:
    """Read `a` or `a,b`."""
    return text.split(",")


def count_or_off(text: str) -> int | None:
    """Read a number; None for `off`."""
    return None if text == "off" else int(text)


def answer(text: str) -> str:
    """Read the name of an event about a slice."""
    if text not in ANSWERS:
        raise ValueError(f"{text!r} is no answer: write one of {', '.join(sorted(ANSWERS))}")
    return text


def shape(text: str) -> SliceShape:
    """Read `tpu:v4-16`, `gpu:4x8` (hosts, and GPUs of each) or `cpu:2` (hosts).

    Raises:
        ValueError: it is none of these.

    """
    kind, _, size = text.partition(":")
    if kind == "tpu":
        return TpuSlice(size)
    hosts, _, devices = size.partition("x")
    if kind == "gpu" and devices:
        return GpuSlice(int(hosts), int(devices))
    if kind == "cpu" and not devices:
        return CpuSlice(int(hosts))
    raise ValueError(f"{text!r} is no shape: write tpu:v4-16, gpu:4x8 (hosts x GPUs of each) or cpu:2 (hosts)")


def options(written: Sequence[str], readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Read words such as `name=value`, each by the reader of its name.

    Raises:
        ValueError: one is not written so, or has no reader.

    """
    read: dict[str, Any] = {}
    for word in written:
        name, equals, value = word.partition("=")
        if not equals or name not in readers:
            known = ", ".join(f"{name}=..." for name in readers) or "nothing"
            raise ValueError(f"{word!r} is unknown here; there may be {known}")
        read[name] = readers[name](value)
    return read
