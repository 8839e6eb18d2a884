"""The form of a record: one JSON object a line, a header and then one line for every tick.

What a header and a tick say is for people, too. Of work, arguments, results, exceptions and values of environments
nothing is written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from sliceform.controller.errors import ConfigurationError
from sliceform.controller.model.effects import EffectRequest, Launch
from sliceform.controller.model.events import Event, Node, NodesSeen
from sliceform.controller.model.orders import Order, Submit
from sliceform.controller.reconcile.inputs import Beat, Inputs
from sliceform.controller.reconcile.witness import Ticked
from sliceform.states import Change

#: The form of the lines; grows when older programs cannot read them any more.
FORMAT = 1

#: Fields that are not written down: they are secret, large, or mean nothing elsewhere.
_LEFT_OUT = frozenset({"work", "load", "error", "traceback", "shape"})
#: Those of which only the names are.
_NAMES_ONLY = frozenset({"env", "runtime_env"})
_KINDS: Mapping[str, type] = {kind.__name__: kind for kind in (*get_args(Event), *get_args(Order))}


def tick_row(ticked: Ticked) -> dict[str, Any]:
    """Return a tick as it is written down; what is empty is left out."""
    inputs = ticked.inputs
    row = {
        "tick": ticked.tick,
        "monotonic": inputs.monotonic,
        "epoch": inputs.epoch,
        "beats": _beat_rows(beat for beat in inputs.beats if beat.raylet_ok),
        "beats_without_raylet": _beat_rows(beat for beat in inputs.beats if not beat.raylet_ok),
        "events": [_tagged(event) for event in inputs.events],
        "orders": [_tagged(order) for order in inputs.orders],
        "decided": decisions(ticked),
    }
    return {name: value for name, value in row.items() if value not in ([], {})}


def inputs_of(row: Mapping[str, Any], nodes: Mapping[str, Node]) -> Inputs:
    """Return what a tick took, from its row; `nodes` is the node table as it was seen last before.

    Raises:
        ConfigurationError: another program wrote it.

    """
    beats = [
        *_beats(row.get("beats", {}), raylet_ok=True),
        *_beats(row.get("beats_without_raylet", {}), raylet_ok=False),
    ]
    try:
        events: list[Any] = []
        for told in row.get("events", ()):
            events.append(_untagged(told, nodes))
            if isinstance(events[-1], NodesSeen):
                nodes = events[-1].nodes
        orders = [_untagged(told, nodes) for told in row.get("orders", ())]
        return Inputs(row["monotonic"], row["epoch"], beats, events, orders)
    except (KeyError, TypeError, ValidationError) as error:
        raise ConfigurationError(f"tick {row.get('tick')} is not one that this sliceform knows: {error!r}") from error


def decisions(ticked: Ticked) -> list[str]:
    """Say in lines what a tick decided, as far as replay compares it: not the words of details, which may change."""
    told = [_change(change) for change in ticked.changes] + [_effect(effect) for effect in ticked.effects]
    return [*told, f"raised {ticked.error}"] if ticked.error else told


def _change(change: Change) -> str:
    what = "note" if change.is_note else f"{change.trigger}: {change.source or '[*]'} -> {change.dest or '[*]'}"
    return f"{change.key} {what} ({change.reason})" + (f" <- {change.cause}" if change.cause else "")


def _effect(effect: EffectRequest) -> str:
    values = {"attempt": effect.attempt.key, "members": effect.attempt.members} if isinstance(effect, Launch) else {}
    values = {field.name: getattr(effect, field.name) for field in fields(effect)} | values
    told = [f"{name}={_plain(value)}" for name, value in values.items() if name not in _LEFT_OUT and value]
    return " ".join(["ask", effect.effect.value, *told])


def _beat_rows(beats: Iterable[Beat]) -> dict[str, list[int]]:
    rows: dict[str, set[int]] = {}
    for beat in beats:
        rows.setdefault(beat.slice_id, set()).add(beat.rank)
    return {slice_id: sorted(ranks) for slice_id, ranks in rows.items()}


def _beats(rows: Mapping[str, Sequence[int]], *, raylet_ok: bool) -> Iterable[Beat]:
    return (Beat(slice_id, rank, raylet_ok) for slice_id, ranks in rows.items() for rank in ranks)


def _tagged(value: Any) -> dict[str, Any]:
    """Return an event or an order with the name of what it is; of a node table only what changed."""
    if isinstance(value, NodesSeen):
        rows = {node: _plain(value.nodes[node]) if node in value.nodes else None for node in sorted(value.changed)}
        return {NodesSeen.__name__: rows}
    return {type(value).__name__: _plain(value)}


def _untagged(told: Mapping[str, Any], nodes: Mapping[str, Node]) -> Any:
    ((name, value),) = told.items()
    if name == NodesSeen.__name__:
        return _nodes_seen(value, nodes)
    if name == Submit.__name__:
        options = value["options"] | {
            field: dict.fromkeys(value["options"].get(field) or ()) for field in ("runtime_env",)
        }
        options["env"] = dict.fromkeys(value["options"].get("env") or (), "")
        value = value | {"work": None, "options": options}
    return _reader(name).validate_python(value)


def _nodes_seen(rows: Mapping[str, Any], nodes: Mapping[str, Node]) -> NodesSeen:
    changed = frozenset(rows)
    kept = {node: row for node, row in nodes.items() if node not in changed}
    new = {node: _reader("Node").validate_python(row) for node, row in rows.items() if row is not None}
    return NodesSeen(kept | new if changed else nodes, changed)


@cache
def _reader(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(Node if name == Node.__name__ else _KINDS[name])


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return _fields({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _fields(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(map(_plain, value), key=str)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: sorted(value or ()) if name in _NAMES_ONLY else _plain(value)
        for name, value in values.items()
        if name not in _LEFT_OUT
    }
