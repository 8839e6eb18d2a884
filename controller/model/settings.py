"""Times and limits of one controller; every field can be set by an environment variable `SLICEFORM_<FIELD>`.

Explicit arguments go before the environment, the environment before the defaults. Pure but for reading the environment
when an object is made.
"""

from __future__ import annotations

import os
from difflib import SequenceMatcher
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]

#: Beats that may be missed before a host counts as silent, whatever `silence_s` says.
_BEATS_MISSED = 3
#: The least that a fence lasts, in beats.
_BEATS_FENCED = 4


_PREFIX = "SLICEFORM_"
#: From 0.0 to 1.0, how much alike names are of which one may have been meant for the other.
_NEAR = 0.75


def _alike(name: str, field: str) -> float:
    return SequenceMatcher(None, name.removeprefix(_PREFIX), field.removeprefix(_PREFIX)).ratio()


class Settings(BaseSettings):
    """All times in seconds; made once, never changed."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    resync_s: _Positive = 1.0
    """The loop wakes at least this often, though nothing happened."""

    nodes_every_s: _Positive = 1.0
    """How often the cluster's node table is read."""

    beat_s: _Positive = 2.0
    """How often the agent of every host is heard."""

    silence_s: _Positive = 10.0
    """A host that has not been heard for so long counts as lost; see `effective_silence_s`."""

    pending_s: _Positive = 86_400.0
    """How long a slice may wait for its reservation before it is given up and asked for anew."""

    placed_s: _Positive = 1_800.0
    """How long a placed slice may take until every agent has answered, and a host until it can be prepared for work."""

    metadata_notices: bool = True
    """Whether hosts ask the GCE metadata server, where there is one, for notices of preemption and maintenance."""

    notice_every_s: _Positive = 5.0
    """How often every host calls the fleet's `notice_source`, if it has one."""

    drain_grace_s: _NotNegative = 30.0
    """How long work may go on after a drain, or after a notice that names no deadline."""

    close_grace_s: _NotNegative = 10.0
    """How long work may go on when the fleet is closed."""

    cancel_grace_s: _NotNegative = 5.0
    """How long the processes of a cancelled run have to end by themselves."""

    settle_s: _NotNegative = 30.0
    """A run starts on a smaller valid size once no slice has been added for so long."""

    overtake_s: _NotNegative = 600.0
    """A run that cannot start may be overtaken until it has waited so long; then free slices are kept for it."""

    scale_up_after_s: _NotNegative = 600.0
    """A run is started again on more slices once so many more have been free for so long."""

    surplus_s: _NotNegative = 300.0
    """Idle slices beyond the largest valid size reached go back after so long."""

    avoid_lost_s: _NotNegative = 300.0
    """A lost place is avoided until the nodes that were lost are seen dead, at most for so long."""

    quarantine_after: _Count = 3
    """A place that failed this many times within `quarantine_s` because of one host is quarantined."""

    quarantine_s: _NotNegative = 1_800.0
    """How long a place that keeps failing is avoided; it is tried sooner if a slice waits meanwhile."""

    backoff_initial_s: _Positive = 0.5
    """Delay before an effect that failed is tried again; doubles with every failure."""

    backoff_max_s: _Positive = 60.0
    """The longest such delay."""

    loss_grace_s: _NotNegative = 0.0
    """How long work may go on on the other slices of an attempt after one of them is lost."""

    fence_s: _Positive = 20.0
    """A host of an ended attempt that neither answers nor proves dead keeps the next attempt waiting for so long."""

    verdict_s: _NotNegative = 30.0
    """How long at most to wait for evidence on why an attempt ended before it is charged to a budget; two reads of the
    node table are enough."""

    release_stuck_s: _Positive = 60.0
    """A draining slice that has not been released for so long is reported as stuck."""

    history_limit: _Count = 100_000
    """How many changes are kept in memory."""

    journal_limit: _Count = 500_000
    """How many changes, and hosts of attempts, a journal keeps; what lives is kept beyond that."""

    io_queue_limit: _Count = 100_000
    """How many calls to the cluster may wait in the queue."""

    coordinator_ports: Annotated[str, Field(pattern=r"^\d{1,5}-\d{1,5}$")] = "20000-31999"
    """From which ports to which an attempt takes two on its first host, for the hosts to meet; jax uses one of them."""

    jax_shutdown_s: _NotNegative = 300.0
    """How long `jax.distributed.shutdown()` may take after the user's function."""

    metrics: bool = True
    """Whether the fleet is measured through `ray.util.metrics`, where it runs on Ray."""

    clean_devices: bool = False
    """Whether processes that earlier runs left holding TPU devices are ended before a run; other holders are logged."""

    kill_device_holders: bool = False
    """Whether `clean_devices` also ends holders that no run of ours left."""

    @property
    def port_range(self) -> range:
        """The ports of `coordinator_ports`."""
        first, _, last = self.coordinator_ports.partition("-")
        return range(int(first), int(last) + 1)

    @property
    def effective_silence_s(self) -> float:
        """The silence after which a host counts as lost: never less than three beats."""
        return max(self.silence_s, _BEATS_MISSED * self.beat_s)

    @property
    def effective_fence_s(self) -> float:
        """How long such a host keeps the next attempt waiting: its agent has half of it, never less than two beats."""
        return max(self.fence_s, _BEATS_FENCED * self.beat_s)

    @model_validator(mode="before")
    @classmethod
    def _check_environment(cls, given: object) -> object:
        """Refuse a variable that is nearly the name of a setting: a typing error would change nothing, unseen.

        Other variables that begin so are left alone: hosts have some of ours, and users may have their own.
        """
        names = [name for name in os.environ if name.upper().startswith(_PREFIX)]
        fields = [f"{_PREFIX}{field.upper()}" for field in cls.model_fields]
        for name in sorted({name.upper() for name in names} - set(fields)):
            near = [field for field in fields if _alike(name, field) >= _NEAR]
            if near:
                meant = " or ".join(sorted(near, key=lambda field: -_alike(name, field))[:2])
                raise ValueError(f"no setting is read from {name}; did you mean {meant}? See docs/configuration.md")
        return given

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.backoff_max_s < self.backoff_initial_s:
            message = (
                f"backoff_max_s ({self.backoff_max_s}) must not be less than "
                f"backoff_initial_s ({self.backoff_initial_s})"
            )
            raise ValueError(message)
        if self.resync_s >= self.effective_silence_s:
            message = (
                f"resync_s ({self.resync_s}) must be less than the effective silence "
                f"({self.effective_silence_s}), or a silent host is found late"
            )
            raise ValueError(message)
        ports = self.port_range
        if not 0 < ports.start < ports.stop - 1 < 2**16:
            message = (
                f"coordinator_ports ({self.coordinator_ports}) must be two numbers from 1 to 65535, the lower first"
            )
            raise ValueError(message)
        if self.kill_device_holders and not self.clean_devices:
            raise ValueError("kill_device_holders does nothing without clean_devices: set both, or neither")
        return self
