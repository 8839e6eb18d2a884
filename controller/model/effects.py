"""What the controller asks of a backend: one frozen value per effect, keyed `(life, effect)`.

A request says everything that its effect needs, so that it can be submitted again, in any order with those of other
slices, without harm: a backend that already did it only reports the outcome once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sliceform.controller.model.shapes import SliceShape
from sliceform.states.effects import Effect


@dataclass(frozen=True, slots=True)
class Reserve:
    """Claim capacity for a slice: the head group (TPU) or the host group at once (GPU, CPU)."""

    effect: ClassVar[Effect] = Effect.RESERVE
    slice_id: str
    shape: SliceShape
    #: Slice names (TPU) or node ids (GPU, CPU) that must not be taken now.
    avoid: frozenset[str] = frozenset()
    #: TPU: ids of nodes whose heads must not be taken, where the name of their slice does not tell them apart.
    avoid_nodes: frozenset[str] = frozenset()
    #: GPU, CPU: what all nodes must have as label `ray.io/accelerator-type`; None = whatever they have.
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class Assemble:
    """Create the host group pinned to the slice (TPU) and start an agent in every bundle."""

    effect: ClassVar[Effect] = Effect.ASSEMBLE
    slice_id: str
    shape: SliceShape
    #: TPU slice name; None for GPU and CPU, whose host group exists since `Reserve`.
    place: str | None
    #: In how many units Ray counts each accelerator there; all of them are reserved.
    units: int = 1


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """One attempt of one run: the same value goes to every slice that takes part."""

    #: `<run id>/<number>`, for example `run-1/2`.
    key: str
    run_id: str
    #: Counted from 1.
    number: int
    #: Slice ids by slice rank: `members[slice_rank]`.
    members: tuple[str, ...]
    hosts_per_slice: int
    #: What `Backend.pack` made of the user's function and arguments.
    work: Any = field(repr=False)
    #: Variables of the user's, set on every host before the function is unpickled.
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Ray `runtime_env` of the user's, or None.
    runtime_env: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Why the attempt before this one ended; None for the first.
    previous: str | None = None
    #: How long `jax.distributed.shutdown()` may take after the function, seconds.
    jax_shutdown_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Launch:
    """Run the attempt's function in a fresh process on every host of this slice."""

    effect: ClassVar[Effect] = Effect.LAUNCH
    slice_id: str
    shape: SliceShape
    attempt: AttemptSpec
    slice_rank: int


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the work on this slice to checkpoint and stop by the deadline."""

    effect: ClassVar[Effect] = Effect.NOTIFY
    slice_id: str
    attempt_key: str | None
    #: Epoch seconds; None when no deadline is known.
    deadline_epoch_s: float | None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the attempt's processes on this slice: ask, wait `grace_s`, then force; report each one gone."""

    effect: ClassVar[Effect] = Effect.STOP
    slice_id: str
    attempt_key: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Release:
    """End what is left of the slice: processes, agents, then its groups; report when the groups are seen removed."""

    effect: ClassVar[Effect] = Effect.RELEASE
    slice_id: str
    #: How long work that still runs may go on, seconds; 0 after a loss.
    grace_s: float
    #: The slice was lost: both groups go at once, so that its claims do not stand in the way of its replacement.
    lost: bool = False
    #: The attempt that may still run on it: it is to be told of each host when that is clear of it.
    attempt_key: str | None = None


EffectRequest = Reserve | Assemble | Launch | Notify | Stop | Release
