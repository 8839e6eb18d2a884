"""The shape of one slice: what every host of it has.

Shapes are pydantic models because they come from users; what follows from them is plain values. Pure: imports neither
Ray nor anything that acts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, NoReturn, Self, TypedDict, TypeVar, Unpack

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from sliceform.controller.model.selectors import check_selector
from sliceform.controller.model.topology import PodType, describe, is_known

Kind = Literal["tpu", "gpu", "cpu"]
Strategy = Literal["PACK", "STRICT_SPREAD"]

#: Resources that are asked for in another way than by `resources_per_host`.
_ASKED_ELSEWHERE: Mapping[str, str] = {
    "CPU": "cpus_per_host",
    "GPU": "gpus_per_host of a GpuSlice",
    "TPU": "the pod type of a TpuSlice",
    "memory": "memory_per_host",
}


@dataclass(frozen=True, slots=True)
class Devices:
    """The accelerators of one host."""

    #: The resource's name in Ray; None for a shape without accelerators.
    name: str | None
    count: int


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


def _checked(selector: dict[str, str]) -> dict[str, str]:
    check_selector(selector)
    return selector


_Amount = StrictInt | StrictFloat
_Resources = Annotated[dict[str, _Amount], AfterValidator(FrozenDict)]
_Labels = Annotated[dict[str, str], AfterValidator(_checked), AfterValidator(FrozenDict)]


class _Options(TypedDict, total=False):
    """What the shapes take by name."""

    memory_per_host: int | None
    resources_per_host: Mapping[str, float] | None


class _GpuOptions(_Options, total=False):
    cpus_per_host: float
    label_selector: Mapping[str, str] | None


class _TpuOptions(_GpuOptions, total=False):
    topology: str | None
    chips_per_host: int | None


class _CpuOptions(_Options, total=False):
    spread: bool
    label_selector: Mapping[str, str] | None


class SliceShape(BaseModel, ABC):
    """What every slice of a fleet looks like; all shapes answer the same questions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[Kind]
    #: Fields that a reader knows without their names.
    _by_position: ClassVar[tuple[str, ...]]

    cpus_per_host: _Amount = Field(default=1, ge=0, description="CPUs reserved on every host")
    memory_per_host: StrictInt | None = Field(default=None, gt=0, description="memory reserved on every host, bytes")
    resources_per_host: _Resources | None = Field(
        default=None, description="further Ray resources reserved on every host"
    )

    if TYPE_CHECKING:

        @property
        def hosts(self) -> int:
            """Hosts of one slice: a field of some shapes, derived in others."""
            ...

    @property
    @abstractmethod
    def devices_per_host(self) -> Devices:
        """The accelerators of every host."""

    @property
    @abstractmethod
    def strategy(self) -> Strategy:
        """How the bundles of one slice are to be placed."""

    @property
    def exclusive_nodes(self) -> bool:
        """Whether every host of a slice must be a node of its own, among the hosts of that slice."""
        return self.strategy == "STRICT_SPREAD"

    @property
    def selector(self) -> Mapping[str, str]:
        """The user's label selector for every bundle; empty when there is none."""
        return {}

    @property
    def bundle(self) -> dict[str, float]:
        """What is reserved on one host, as a bundle of a placement group."""
        bundle: dict[str, float] = {"CPU": self.cpus_per_host}
        devices = self.devices_per_host
        if devices.name is not None:
            bundle[devices.name] = devices.count
        if self.memory_per_host is not None:
            bundle["memory"] = self.memory_per_host
        bundle.update(self.resources_per_host or {})
        return {resource: amount for resource, amount in bundle.items() if amount}

    def __str__(self) -> str:
        """Name the kind, and all that is not as usual."""
        said = self.model_dump(exclude_defaults=True, exclude=self._as_usual())
        first = [str(said.pop(name)) for name in self._by_position if name in said]
        return f"{type(self).__name__}({', '.join([*first, *(f'{name}={value}' for name, value in said.items())])})"

    def _as_usual(self) -> set[str]:
        """Return the fields that follow from others and are as those have them."""
        return set()

    @field_validator("resources_per_host")
    @classmethod
    def _check_resources(cls, value: Mapping[str, float] | None) -> Mapping[str, float] | None:
        for name, amount in (value or {}).items():
            if name in _ASKED_ELSEWHERE:
                message = f"ask for {name} through {_ASKED_ELSEWHERE[name]}, not through resources_per_host"
                raise ValueError(message)
            if amount <= 0:
                message = f"{name} must be more than 0, not {amount}; leave it out to ask for none"
                raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _check_bundle(self) -> Self:
        if not self.bundle:
            message = "every host must ask for something: cpus_per_host above 0, memory_per_host or resources_per_host"
            raise ValueError(message)
        return self


#: Labels of a slice that are not for a user's selector, and why.
_OWN_LABELS: Mapping[str, str] = {
    "ray.io/tpu-pod-type": "it follows from the pod type",
    "ray.io/tpu-slice-name": "a slice is kept away from by `SliceController.avoid`",
    "ray.io/tpu-topology": "say topology=",
    "ray.io/tpu-worker-id": "host i is always worker i",
}


class TpuSlice(SliceShape):
    """A TPU pod slice: hosts, chips per host and topology follow from the pod type, unless they are said."""

    kind: ClassVar[Kind] = "tpu"
    _by_position = ("pod_type",)

    pod_type: str = Field(description="for example v4-16")
    # None is never seen: `_derive` fills them in.
    topology: str = Field(default=None, description="how the chips are joined, e.g. 2x2x2")  # type: ignore[assignment]
    chips_per_host: StrictInt = Field(default=None, description="TPU chips of every host")  # type: ignore[assignment]
    label_selector: _Labels | None = Field(default=None, description="Ray label selector that every host must match")

    def __init__(self, pod_type: str, **options: Unpack[_TpuOptions]) -> None:
        """Take the pod type by position; everything else by name."""
        BaseModel.__init__(self, pod_type=pod_type, **options)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: Any) -> Any:
        """Fill in what follows from the pod type."""
        if not isinstance(given, Mapping):
            return given
        pod_type, topology, chips_per_host = (given.get(name) for name in ("pod_type", "topology", "chips_per_host"))
        if not isinstance(pod_type, str):
            return given
        if not isinstance(topology, str | None) or type(chips_per_host) not in {int, type(None)}:
            return given
        facts = describe(pod_type, topology, chips_per_host)
        derived = {"pod_type": facts.pod_type, "topology": facts.topology, "chips_per_host": facts.chips_per_host}
        return {**given, **derived}

    @field_validator("label_selector")
    @classmethod
    def _check_labels(cls, value: Mapping[str, str] | None) -> Mapping[str, str] | None:
        for label in value or {}:
            if label in _OWN_LABELS:
                raise ValueError(f"{label} is not for label_selector: {_OWN_LABELS[label]}")
        return value

    @property
    def facts(self) -> PodType:
        """All that is known of the pod type."""
        return describe(self.pod_type, self.topology, self.chips_per_host)

    @property
    def hosts(self) -> int:
        """Hosts of one slice."""
        return self.facts.hosts

    @property
    def selector(self) -> Mapping[str, str]:
        """The user's label selector."""
        return self.label_selector or {}

    @property
    def head_resource(self) -> str:
        """The resource that Ray gives to worker 0 of such a slice, and to no other node."""
        return f"TPU-{self.pod_type}-head"

    @property
    def devices_per_host(self) -> Devices:
        """The TPU chips of every host."""
        return Devices("TPU", self.chips_per_host)

    @property
    def strategy(self) -> Strategy:
        """One host per node: the selectors by worker id leave no other choice."""
        return "STRICT_SPREAD"

    def _as_usual(self) -> set[str]:
        known = is_known(self.pod_type) and self.facts == describe(self.pod_type)
        return {"topology", "chips_per_host"} if known else set()


class GpuSlice(SliceShape):
    """A gang of GPU hosts, each on a node of its own."""

    kind: ClassVar[Kind] = "gpu"
    _by_position = ("hosts", "gpus_per_host")

    hosts: StrictInt = Field(gt=0, description="hosts of one slice")
    gpus_per_host: StrictInt = Field(default=1, gt=0, description="GPUs reserved on every host")
    label_selector: _Labels | None = Field(default=None, description="Ray label selector that every host must match")

    def __init__(self, hosts: int, gpus_per_host: int = 1, **options: Unpack[_GpuOptions]) -> None:
        """Take hosts and GPUs per host by position; everything else by name."""
        BaseModel.__init__(self, hosts=hosts, gpus_per_host=gpus_per_host, **options)

    @property
    def devices_per_host(self) -> Devices:
        """The GPUs of every host."""
        return Devices("GPU", self.gpus_per_host)

    @property
    def strategy(self) -> Strategy:
        """One host per node."""
        return "STRICT_SPREAD"

    @property
    def selector(self) -> Mapping[str, str]:
        """The user's label selector."""
        return self.label_selector or {}


class CpuSlice(SliceShape):
    """A few hosts without accelerators; they share nodes unless spread, so that one machine serves."""

    kind: ClassVar[Kind] = "cpu"
    _by_position = ("hosts",)

    hosts: StrictInt = Field(default=1, gt=0, description="hosts of one slice")
    spread: bool = Field(default=False, strict=True, description="whether every host must be a node of its own")
    label_selector: _Labels | None = Field(default=None, description="Ray label selector that every host must match")

    def __init__(self, hosts: int = 1, cpus_per_host: float = 1, **options: Unpack[_CpuOptions]) -> None:
        """Take hosts and CPUs per host by position; everything else by name."""
        BaseModel.__init__(self, hosts=hosts, cpus_per_host=cpus_per_host, **options)

    @property
    def devices_per_host(self) -> Devices:
        """No accelerators."""
        return Devices(None, 0)

    @property
    def strategy(self) -> Strategy:
        """As few nodes as will do, or one node per host."""
        return "STRICT_SPREAD" if self.spread else "PACK"

    @property
    def selector(self) -> Mapping[str, str]:
        """The user's label selector."""
        return self.label_selector or {}
