"""Pickle values that may contain references, which then travel beside the bytes, where Ray counts who holds them.

Ray keeps an object, or an actor, as long as somebody holds a reference or handle, and knows of those that it has
pickled itself. What is inside bytes that somebody else has pickled it can only keep for ever ("out of band" in
`ray._private.serialization` of Ray 2.60). So the bytes say only which reference belongs there.
"""

from __future__ import annotations

import contextvars
import io
from typing import Any, NamedTuple

import ray
from ray import cloudpickle
from ray.actor import ActorHandle

#: The references of the parcel that is being opened.
_opened: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("opened")


class Parcel(NamedTuple):
    """A value as it travels."""

    data: bytes
    #: References and actor handles, in the order in which the bytes count them.
    held: tuple[Any, ...] = ()


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Puts references aside."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.held: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        """Do as cloudpickle does with all else."""
        if isinstance(obj, ray.ObjectRef | ActorHandle):
            self.held.append(obj)
            return _held, (len(self.held) - 1,)
        return super().reducer_override(obj)


def wrap(value: Any) -> Parcel:
    """Pickle a value; raises whatever its classes raise."""
    with io.BytesIO() as file:
        pickler = _Pickler(file)
        pickler.dump(value)
        return Parcel(file.getvalue(), tuple(pickler.held))


def unwrap(data: bytes, held: tuple[Any, ...] = ()) -> Any:
    """Return the value of a parcel; raises whatever its classes raise."""
    token = _opened.set(held)
    try:
        return cloudpickle.loads(data)
    finally:
        _opened.reset(token)


def with_values(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call it as Ray calls a task: references among the arguments are replaced by their values, nested ones are not."""
    places = [*enumerate(args), *kwargs.items()]
    refs = {place: argument for place, argument in places if isinstance(argument, ray.ObjectRef)}
    values = dict(zip(refs, ray.get(list(refs.values())), strict=True))
    return function(
        *(values.get(place, argument) for place, argument in enumerate(args)),
        **{name: values.get(name, argument) for name, argument in kwargs.items()},
    )


def _held(index: int) -> Any:
    """Stand in the bytes for a reference."""
    return _opened.get()[index]
