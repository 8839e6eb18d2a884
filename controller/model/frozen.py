"""A mapping that cannot be changed, for values that must stay as they were checked.

Pure: imports nothing but the standard library.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

V = TypeVar("V")


class FrozenDict(dict[str, V], Generic[V]):
    """A dict without the ways to change it, so that it can be hashed; copies and pickles as itself."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        message = "this mapping is part of a frozen value: make a new one instead"
        raise TypeError(message)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash the items, whatever their order."""
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from a plain dict: the default way would set items one by one."""
        return type(self), (dict(self),)
