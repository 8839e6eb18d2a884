"""The actor behind references that the driver promises: `take` returns once the driver has `put` what it is to return.

It travels by value, so it uses only the standard library. It never unpickles what passes through: a user's classes need
not be importable where it runs.
"""

from __future__ import annotations

import asyncio
import pickle
from typing import Any


class Sealed:
    """A pickled value that becomes the value itself where it is unpickled.

    The references in it, if any, Ray pickles itself, so that it knows who holds them.
    """

    def __init__(self, data: bytes, held: tuple[Any, ...]) -> None:
        self._data = data
        self._held = held

    def __reduce__(self) -> tuple[Any, ...]:
        return (_open, (self._data, self._held)) if self._held else (pickle.loads, (self._data,))


def _open(data: bytes, held: tuple[Any, ...]) -> Any:
    from sliceform.controller.on_host.parcel import unwrap

    return unwrap(data, held)


class SealedError(Exception):
    """A pickled exception that becomes the exception itself where it is unpickled; shows the text given with it."""

    def __init__(self, data: bytes, text: str) -> None:
        super().__init__(text)
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


class Mailbox:
    """Promises by number."""

    def __init__(self) -> None:
        self._slots: dict[int, asyncio.Future[tuple[bytes, str | None, tuple[Any, ...]]]] = {}
        self._dropped: list[int] = []
        self._told = asyncio.Event()

    async def take(self, number: int) -> Any:
        """Return, or raise, what is put for this promise."""
        try:
            data, text, held = await self._slot(number)
        except asyncio.CancelledError:
            self._dropped.append(number)
            self._told.set()
            raise
        finally:
            self._slots.pop(number, None)
        if text is None:
            return Sealed(data, held)
        raise SealedError(data, text)

    async def put(self, number: int, data: bytes, text: str | None, held: tuple[Any, ...] = ()) -> None:
        """Keep a promise: with a value and the references in it, or with an exception and its text."""
        slot = self._slot(number)
        if not slot.done():
            slot.set_result((data, text, held))

    async def dropped(self) -> list[int]:
        """Return the promises that were cancelled with `ray.cancel`, as soon as there are any."""
        await self._told.wait()
        self._told.clear()
        dropped, self._dropped = self._dropped, []
        return dropped

    async def hand(self, refs: list[Any]) -> list[Any]:
        """Return these references."""
        return refs

    async def hand_one(self, refs: list[Any]) -> Any:
        """Return the only one of these references."""
        return refs[0]

    def _slot(self, number: int) -> asyncio.Future[tuple[bytes, str | None, tuple[Any, ...]]]:
        if number not in self._slots:
            self._slots[number] = asyncio.get_running_loop().create_future()
        return self._slots[number]
