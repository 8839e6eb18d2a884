"""Copy a state, pack it away, and name it by a key that is the same where only names and absolute time differ.

All are derived from the objects themselves: dataclasses by their fields, the few plain objects of the core by their
attributes. `fields` says how times are read and what is left out; whatever it does not know fails here.
"""

from __future__ import annotations

import dataclasses
import enum
import io
import pickle
import re
import types
import zlib
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from .fields import LEFT_OUT, PLAIN, READ, REMADE, SHARED, UNORDERED, Ago, Reading

#: Ids that a key does not depend on: of lives, nodes, runs, and attempts of these.
_ID = re.compile(r"((?:slice|node)-\d+|run-\d+(?:/\d+)?)")

#: Fields named in `fields` that have been met: a name that is never met is out of date.
met: set[str] = set()


class UnknownToTheExplorerError(TypeError):
    """A class or a field that nobody has said how to read: say it in `fields`."""


# Copying.


def copy(thing: Any) -> Any:
    """Return an independent copy; what never changes, and what all states share, is the same object."""
    return _copy(thing, {})


def _copy(thing: Any, memo: dict[int, Any]) -> Any:
    cls = thing.__class__
    if cls in _WHOLE:
        return thing
    how = _COPIES.get(cls)
    if how is None:
        how = _learn_copy(cls, thing)
    return how(thing, memo)


def _learn_copy(cls: type, thing: Any) -> Callable[[Any, dict[int, Any]], Any]:
    if _never_changes(cls):
        _WHOLE.add(cls)
        return lambda thing, _: thing
    how = _COPIES[cls] = _object_copy(cls, _names(cls, thing))
    return how


def _never_changes(cls: type) -> bool:
    frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen or cls.__name__ in SHARED or issubclass(cls, enum.Enum) or hasattr(cls, "_fields")


def _names(cls: type, thing: Any) -> tuple[str, ...]:
    """Return the names of the fields of a class, all of them."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "_fields"):
        return tuple(cls._fields)
    if cls.__name__ in PLAIN:
        return tuple(vars(thing))
    raise UnknownToTheExplorerError(f"{cls.__module__}.{cls.__name__}: {thing!r}")


def _object_copy(cls: type, names: tuple[str, ...]) -> Callable[[Any, dict[int, Any]], Any]:
    values = _getter(names)
    remade = [(name, REMADE[f"{cls.__name__}.{name}"]) for name in names if f"{cls.__name__}.{name}" in REMADE]
    met.update(f"{cls.__name__}.{name}" for name, _ in remade)
    new, whole = object.__new__, _WHOLE

    def copied(thing: Any, memo: dict[int, Any]) -> Any:
        known = memo.get(id(thing))
        if known is not None:
            return known
        twin = memo[id(thing)] = new(cls)
        for name, value in zip(names, values(thing), strict=True):
            setattr(twin, name, value if value.__class__ in whole else _copy(value, memo))
        for name, value in remade:
            setattr(twin, name, value)
        return twin

    return copied


def _copy_tuple(thing: tuple[Any, ...], memo: dict[int, Any]) -> tuple[Any, ...]:
    for value in thing:
        if value.__class__ not in _WHOLE:
            return tuple([_copy(value, memo) for value in thing])
    return thing


_COPIES: dict[type, Callable[[Any, dict[int, Any]], Any]] = {
    tuple: _copy_tuple,
    list: lambda thing, memo: [_copy(value, memo) for value in thing],
    deque: lambda thing, memo: deque([_copy(value, memo) for value in thing], thing.maxlen),
    set: lambda thing, _: set(thing),
    Counter: lambda thing, _: Counter(thing),
    dict: lambda thing, memo: {name: _copy(value, memo) for name, value in thing.items()},
}
_WHOLE: set[type] = {type(None), bool, int, float, str, bytes, frozenset, types.FunctionType, types.MappingProxyType}


# Packing.


class Store:
    """Packs states of one search, of which there are too many to keep as they are: a tenth of the size."""

    def __init__(self, example: Any) -> None:
        """Take a state that others are like: what they have in common with it is not kept again."""
        self._common = b""
        self._common = zlib.decompress(self.pack(example))

    def pack(self, state: Any) -> bytes:
        """Return a state as bytes that are good in this process."""
        written = io.BytesIO()
        _Packer(written, pickle.HIGHEST_PROTOCOL).dump(state)
        packer = zlib.compressobj(1, zdict=self._common)
        return packer.compress(written.getvalue()) + packer.flush()

    def unpack(self, packed: bytes) -> Any:
        """Return the state again."""
        return pickle.loads(zlib.decompressobj(zdict=self._common).decompress(packed))


class _Packer(pickle.Pickler):
    """Leaves out what all states share."""

    def reducer_override(self, thing: Any) -> Any:
        cls = thing.__class__
        if cls is types.MappingProxyType:
            return _proxy, (dict(thing),)
        if (cls is types.FunctionType and thing.__module__ != __name__) or cls.__name__ in SHARED:
            _SHARED_THINGS.setdefault(id(thing), thing)
            return _shared, (id(thing),)
        return NotImplemented


def _proxy(mapping: dict[Any, Any]) -> Any:
    return types.MappingProxyType(mapping)


def _shared(name: int) -> Any:
    return _SHARED_THINGS[name]


#: By id, what packed states refer to.
_SHARED_THINGS: dict[int, Any] = {}


# Keys.


class Key:
    """Names states; a fresh one for each, as it holds the names and the time of that state."""

    __slots__ = ("cap", "epoch", "ids", "names", "now")

    def __init__(self, now: float, epoch: float, cap: float) -> None:
        """Measure from these; what is longer ago than `cap` seconds is `cap` seconds ago."""
        self.now, self.epoch, self.cap = now, epoch, cap
        self.ids: dict[str, int] = {}
        self.names: dict[str, Hashable] = {}

    def of(self, thing: Any) -> Hashable:
        """Return the key of a value."""
        cls = thing.__class__
        if cls in _ITSELF:
            return thing  # type: ignore[no-any-return]
        how = _KEYS.get(cls)
        if how is None:
            how = _learn_key(cls, thing)
        return how(thing, self)

    def name(self, text: str) -> Hashable:
        """Return a text with its ids counted in the order in which they are met."""
        if text in _NAMELESS:
            return text
        known = self.names.get(text)
        if known is None:
            parts = _ID.split(text)
            if len(parts) == 1:
                _NAMELESS.add(text)
                return text
            ids = self.ids
            named = [ids.setdefault(part, len(ids)) if at % 2 else part for at, part in enumerate(parts)]
            known = self.names[text] = tuple(named)
        return known

    def read(self, value: Any, how: Reading) -> Hashable:
        """Return the key of a value in which every float is a time, or a span, that is read so."""
        if value.__class__ is float or how is Reading.FEW or how is Reading.WHETHER:
            return _READINGS[how](value, self)
        if isinstance(value, Mapping):
            return tuple([(self.of(name), self.read(each, how)) for name, each in value.items()])
        if isinstance(value, list | tuple):
            return tuple([self.read(each, how) for each in value])
        return self.of(value)


_READINGS: dict[Reading, Callable[[Any, Key], Hashable]] = {
    Reading.AGO: lambda value, key: min(key.now - value, key.cap),
    Reading.DUE: lambda value, key: max(value - key.now, 0.0),
    Reading.EPOCH_DUE: lambda value, key: max(value - key.epoch, 0.0),
    Reading.FEW: lambda value, _: min(value, 2),
    Reading.SPAN: lambda value, _: value,
    Reading.WHETHER: lambda value, _: value not in {None, ""},
}


def _learn_key(cls: type, thing: Any) -> Callable[[Any, Key], Hashable]:
    if cls is float:
        raise UnknownToTheExplorerError(f"the number {thing!r} in a field that is not in READ: a time? a span?")
    if issubclass(cls, enum.Enum):
        _ITSELF.add(cls)
        return lambda thing, _: thing
    if cls.__name__ in SHARED:
        _KEYS[cls] = lambda _thing, _key: cls.__name__
        return _KEYS[cls]
    how = _KEYS[cls] = _object_key(cls, _names(cls, thing))
    return how


def _object_key(cls: type, names: Iterable[str]) -> Callable[[Any, Key], Hashable]:
    title = cls.__name__
    counted = [name for name in names if f"{title}.{name}" not in LEFT_OUT]
    met.update(f"{title}.{name}" for name in names)
    plain = [name for name in counted if f"{title}.{name}" not in READ and f"{title}.{name}" not in UNORDERED]
    loose = [name for name in counted if f"{title}.{name}" in UNORDERED]
    read = [(name, READ[f"{title}.{name}"]) for name in counted if f"{title}.{name}" in READ]
    values = _getter(tuple(plain))
    itself = _ITSELF

    def key_of(thing: Any, key: Key) -> Hashable:
        try:
            parts: list[Any] = [value if value.__class__ in itself else key.of(value) for value in values(thing)]
        except UnknownToTheExplorerError as error:
            raise UnknownToTheExplorerError(f"in {title} ({', '.join(plain)}): {error}") from None
        for name, how in read:
            value = getattr(thing, name)
            if value is None:
                parts.append(None)
            elif isinstance(how, Reading):
                parts.append(key.read(value, how))
            else:
                parts.append(key.of(how(thing)))
        for name in loose:
            value = getattr(thing, name)
            items = value.items() if isinstance(value, Mapping) else value
            parts.append(frozenset([key.of(item) for item in items]))
        return (title, *parts)

    return key_of


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda thing: (get(thing),)


def _sequence(thing: Any, key: Key) -> Hashable:
    return tuple([value if value.__class__ in _ITSELF else key.of(value) for value in thing])


def _mapping(thing: Mapping[Any, Any], key: Key) -> Hashable:
    return tuple([(key.of(name), key.of(value)) for name, value in thing.items()])


def _set(thing: Iterable[Any], key: Key) -> Hashable:
    return frozenset([key.of(value) for value in thing])


_ITSELF: set[type] = {type(None), bool, int, bytes}
_NAMELESS: set[str] = set()
_KEYS: dict[type, Callable[[Any, Key], Hashable]] = {
    str: lambda thing, key: key.name(thing),
    Ago: lambda thing, key: min((key.epoch if thing.epoch else key.now) - thing.since, thing.span_s),
    tuple: _sequence,
    list: _sequence,
    deque: _sequence,
    dict: _mapping,
    Counter: _mapping,
    types.MappingProxyType: _mapping,
    set: _set,
    frozenset: _set,
}
