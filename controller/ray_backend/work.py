"""Run the user's function on the hosts of slices, in fresh processes inside their bundles, and learn how each ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import structlog
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RuntimeEnvSetupError,
    TaskCancelledError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sliceform.controller.backend import FleetIdentity, Sink
from sliceform.controller.observed import (
    EffectFailed,
    HostLost,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
)
from sliceform.controller.on_host import bootstrap
from sliceform.controller.on_host.remote import run_host
from sliceform.controller.ray_backend.agents import ask, brief
from sliceform.controller.ray_backend.held import Held, Task, Work
from sliceform.controller.ray_backend.io_thread import IoThread
from sliceform.controller.ray_backend.pack import Packed
from sliceform.controller.requests import AttemptSpec, Launch, Notify, Stop
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: How long a process may take to end by itself after the function has returned, seconds: atexit handlers run then.
_ENDING_S = 5.0


@dataclass(slots=True)
class Meeting:
    """Where the hosts of one attempt meet: known once the agent of rank 0 has found free ports."""

    address: str | None = None
    megascale: str | None = None
    #: The work as it goes to all hosts of the attempt; None until the first one gets it.
    argument: Any = None
    #: Hosts that wait for it: (held, launch, rank).
    waiting: list[tuple[Held, Launch, int]] = field(default_factory=list)


class Workers:
    """All attempts of one fleet. Its methods run on the I/O thread; answers are taken on Ray's."""

    def __init__(self, fleet: FleetIdentity, sink: Sink, io: IoThread) -> None:
        """Take where to report and where to call."""
        self._fleet = fleet
        self._sink = sink
        self._io = io
        self._sources = bootstrap.sources()
        self._task = ray.remote(num_returns=2, max_calls=1, max_retries=0)(run_host)
        self._meetings: dict[str, Meeting] = {}

    def launch(self, held: Held, request: Launch) -> None:
        """Start an attempt on one slice; asked again, report what has become of it."""
        key = request.attempt.key
        if held.work is not None and held.work.key == key:
            self._report(held, held.work)
            for rank, task in enumerate(held.work.tasks):
                if task.ref is None and task.outcome is None and rank not in held.work.prepared:
                    self._prepare(held, request, rank)
            return
        held.work = Work(key, [Task() for _ in held.agents])
        for rank in range(len(held.agents)):
            self._prepare(held, request, rank)

    def notify(self, held: Held, request: Notify) -> None:
        """Tell the processes of an attempt to checkpoint and stop."""
        for agent in held.agents:
            if request.attempt_key is not None and not agent.over:
                ask(agent.handle.notify.remote(request.attempt_key, request.deadline_epoch_s), _only_log)

    def stop(self, held: Held, request: Stop) -> None:
        """End an attempt on one slice; processes that are gone are reported by host."""
        if held.work is None or held.work.key != request.attempt_key:
            for rank in range(len(held.agents)):
                self._sink.post(ProcessGone(held.life, rank, request.attempt_key))
            return
        held.work.stopping = True
        for rank in range(len(held.agents)):
            self._clear(held, held.work, rank, request.grace_s)

    def forget(self, held: Held) -> None:
        """Drop what is kept of the life's last attempt."""
        if held.work is not None:
            self._meetings.pop(held.work.key, None)

    def _prepare(self, held: Held, request: Launch, rank: int) -> None:
        spec = request.attempt
        first = request.slice_rank == 0 and rank == 0

        def prepared(answer: Any, error: BaseException | None) -> None:
            self._io.put(lambda: self._prepared(held, request, rank, answer, error))

        ask(held.agents[rank].handle.prepare.remote(spec.key, first), prepared)

    def _prepared(self, held: Held, request: Launch, rank: int, answer: Any, error: BaseException | None) -> None:
        spec, work = request.attempt, held.work
        if work is None or work.key != spec.key or held.releasing:
            return
        if error is not None:
            # The agent's loss is found and reported by its open call; what else went wrong is tried again.
            self._sink.post(EffectFailed(held.life, Effect.LAUNCH, brief(error)))
            return
        work.prepared.add(rank)
        meeting = self._meetings.setdefault(spec.key, Meeting())
        if answer["ports"]:
            meeting.address = f"{answer['address']}:{answer['ports'][0]}"
            meeting.megascale = f"{answer['address']}:{answer['ports'][1]}"
        meeting.waiting.append((held, request, rank))
        if meeting.address is None:
            return
        waiting, meeting.waiting = meeting.waiting, []
        for entry in waiting:
            self._submit(*entry, meeting)

    def _submit(self, held: Held, request: Launch, rank: int, meeting: Meeting) -> None:
        work = held.work
        if work is None or work.key != request.attempt.key or held.releasing or work.tasks[rank].ref is not None:
            return
        packed: Packed = request.attempt.work
        strategy = PlacementGroupSchedulingStrategy(held.hosts, placement_group_bundle_index=rank)
        options = {
            **_resources(held, packed),
            "scheduling_strategy": strategy,
            "name": f"{request.attempt.key}@{held.life}",
        }
        runtime_env = request.attempt.runtime_env or packed.options.get("runtime_env")
        if runtime_env:
            options["runtime_env"] = dict(runtime_env)
        call = _call(self._fleet.incarnation, held, request, rank, meeting)
        if meeting.argument is None:
            meeting.argument = packed.argument()
        envelope, value = self._task.options(**options).remote(self._sources, call, meeting.argument)
        work.tasks[rank].ref = envelope
        ask(envelope, lambda answer, error: self._ended(held, work, rank, value, answer, error))
        ask(
            held.agents[rank].handle.wait_started.remote(work.key),
            lambda _, error: self._started(held, work, rank, error),
        )

    def _started(self, held: Held, work: Work, rank: int, error: BaseException | None) -> None:
        """Take that a process is there; an agent that cannot say so is lost or ends, which is found elsewhere."""
        if error is None:
            self._sink.post(ProcessStarted(held.life, rank, work.key))

    def _ended(  # noqa: PLR0917 - private, called once
        self, held: Held, work: Work, rank: int, value: Any, answer: Any, error: BaseException | None
    ) -> None:
        """Take how one host's task ended, on Ray's thread."""
        outcome = _of_envelope(answer, value) if error is None else _of_error(error, stopping=work.stopping)
        work.tasks[rank].outcome = outcome
        if isinstance(error, NodeDiedError):
            held.agents[rank].over = True
            self._sink.post(HostLost(held.life, rank, Reason.NODE_DIED, brief(error)))
        self._sink.post(ProcessEnded(held.life, rank, work.key, outcome))
        self._io.put(lambda: self._after_end(held, work, rank, None if error is None else value))

    def _after_end(self, held: Held, work: Work, rank: int, unread: Any) -> None:
        if unread is not None:
            # Ray prints an error that nobody reads; this one has been taken with the envelope.
            ask(unread, lambda _answer, _error: None)
        self._clear(held, work, rank, _ENDING_S)

    def _clear(self, held: Held, work: Work, rank: int, grace_s: float) -> None:
        """See to it that nothing of the attempt is left on one host, and report that."""
        if held.agents[rank].over or held.releasing:
            return

        def cleared(_: Any, error: BaseException | None) -> None:
            if error is not None:
                self._sink.post(EffectFailed(held.life, Effect.STOP, brief(error)))
                return
            work.tasks[rank].gone = True
            if work.tasks[rank].outcome is None:
                # It had not started, and finds that it came too late; if it still waits to be started, it need not be.
                self._io.put(lambda: self._cancel(held, work, rank))
            self._sink.post(ProcessGone(held.life, rank, work.key))

        ask(held.agents[rank].handle.stop.remote(work.key, grace_s), cleared)

    def _cancel(self, held: Held, work: Work, rank: int) -> None:
        task = work.tasks[rank]
        if task.outcome is not None:
            return
        if task.ref is not None:
            ray.cancel(task.ref, force=True)
            return
        task.outcome = Outcome(OutcomeKind.STOPPED, "stopped before it started")
        self._sink.post(ProcessEnded(held.life, rank, work.key, task.outcome))

    def _report(self, held: Held, work: Work) -> None:
        for rank, task in enumerate(work.tasks):
            if task.outcome is not None:
                self._sink.post(ProcessEnded(held.life, rank, work.key, task.outcome))
                if task.gone:
                    self._sink.post(ProcessGone(held.life, rank, work.key))
                else:
                    self._clear(held, work, rank, _ENDING_S)


def _resources(held: Held, packed: Packed) -> dict[str, Any]:
    """Ask for the whole bundle: what the shape reserves on a host is what the function gets there."""
    bundle = held.shape.bundle
    options: dict[str, Any] = {
        "num_cpus": bundle.pop("CPU", 0),
        "num_gpus": bundle.pop("GPU", 0),
        "memory": bundle.pop("memory", 0),
        "resources": bundle,
    }
    options.update(
        {name: value for name, value in packed.options.items() if name in {"num_cpus", "num_gpus", "memory"}}
    )
    options["resources"] = {**options["resources"], **packed.options.get("resources", {})}
    return {name: value for name, value in options.items() if value or name == "num_cpus"}


def _call(incarnation: str, held: Held, request: Launch, rank: int, meeting: Meeting) -> dict[str, Any]:
    spec: AttemptSpec = request.attempt
    return {
        "incarnation": incarnation,
        "attempt": spec.key,
        "run_id": spec.run_id,
        "number": spec.number,
        "rank": request.slice_rank * spec.hosts_per_slice + rank,
        "world_size": len(spec.members) * spec.hosts_per_slice,
        "slice_rank": request.slice_rank,
        "num_slices": len(spec.members),
        "host_rank": rank,
        "hosts_per_slice": spec.hosts_per_slice,
        "slice_id": held.life,
        "place": held.place,
        "devices": held.shape.devices_per_host.count,
        "previous": spec.previous,
        "coordinator_address": meeting.address,
        "megascale_address": meeting.megascale,
        "env": dict(spec.env),
        "jax_shutdown_s": spec.jax_shutdown_s,
    }


def _of_envelope(envelope: Mapping[str, Any], value: Any) -> Outcome:
    status = envelope["status"]
    if status == "returned":
        return Outcome(OutcomeKind.RETURNED, load=lambda: ray.cloudpickle.loads(ray.get(value)))
    if status == "stopped":
        return Outcome(OutcomeKind.STOPPED, "stopped before it started")
    return Outcome(OutcomeKind(status), envelope["message"], envelope["traceback"], envelope["error"])


def _of_error(error: BaseException, *, stopping: bool) -> Outcome:
    """Say what it means that Ray has no answer: decided by the kind of error, never by its words."""
    if isinstance(error, NodeDiedError | TaskPlacementGroupRemoved | TaskUnschedulableError):
        return Outcome(OutcomeKind.LOST, brief(error))
    if stopping or isinstance(error, TaskCancelledError):
        return Outcome(OutcomeKind.STOPPED, "stopped by us")
    if isinstance(error, RuntimeEnvSetupError):
        return Outcome(OutcomeKind.REFUSED, brief(error), str(error))
    if isinstance(error, WorkerCrashedError | OutOfMemoryError):
        return Outcome(OutcomeKind.CRASHED, brief(error))
    cause = getattr(error, "cause", None)
    return Outcome(OutcomeKind.CRASHED, brief(cause if isinstance(cause, BaseException) else error), str(error))


def _only_log(_: Any, error: BaseException | None) -> None:
    if error is not None:
        log.info("notify_not_answered", cause=brief(error))
