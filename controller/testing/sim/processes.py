"""The host processes of a simulated cluster: how they start, work, are told to stop, and end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sliceform.controller.model.effects import Launch, Notify, Stop
from sliceform.controller.model.events import (
    EffectFailed,
    Event,
    HostDied,
    Notified,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
)
from sliceform.controller.testing.sim.cluster import SimNode
from sliceform.controller.testing.sim.context import running_as
from sliceform.controller.testing.sim.lives import SimLife, SimProcess
from sliceform.controller.testing.sim.timeline import Action, Timeline
from sliceform.controller.testing.sim.work import SimWork, run_work

_STOPPED = Outcome(OutcomeKind.STOPPED, "stopped by the controller")


class Processes:
    """One process per host and attempt; a process ends once, however often it is told to."""

    def __init__(self, timeline: Timeline, told: list[Event]) -> None:
        """Collect what becomes of processes in `told`."""
        self._timeline = timeline
        self._told = told

    def launch(self, life: SimLife | None, request: Launch) -> None:
        """Start the attempt's process on every host, or say once more what has become of it."""
        if life is None or life.draining or not life.agents:
            why = "the slice is being released" if life and life.draining else "the slice has no hosts"
            self._told.append(EffectFailed(request.slice_id, Launch.effect, why))
            return
        for rank, agent in enumerate(life.agents):
            process = life.processes.get((request.attempt.key, rank))
            if process is not None:
                self._tell_again(process)
                continue
            process = SimProcess(request, rank, agent.node)
            process.told_to_stop = request.attempt.key in life.notified
            process.deadline_epoch_s = life.notified.get(request.attempt.key)
            life.processes[request.attempt.key, rank] = process
            if agent.node.alive:
                start = partial(self._start, life, process)
                self._on_node(agent.node, self._timeline.timings.launch_s, start)
            else:
                self.node_died(life, rank, f"node {agent.node.id[:8]}: {agent.node.death}")

    def notify(self, life: SimLife | None, request: Notify) -> None:
        """Make `should_stop()` true in the processes of an attempt, those that start later included."""
        if life is None or request.attempt_key is None:
            return
        life.notified[request.attempt_key] = request.deadline_epoch_s
        for (attempt, _), process in life.processes.items():
            if attempt == request.attempt_key:
                process.told_to_stop = True
                process.deadline_epoch_s = request.deadline_epoch_s
        self._told.append(Notified(life.id, request.attempt_key, request.deadline_epoch_s))

    def stop(self, life: SimLife | None, request: Stop) -> None:
        """End the attempt's processes, and tell of each host that none is left on it."""
        if life is None:
            return
        life.stopped.add(request.attempt_key)
        delay = min(self._timeline.timings.stop_s, request.grace_s)
        for rank, agent in enumerate(life.agents):
            process = life.processes.get((request.attempt_key, rank))
            if process is None:
                tell = partial(self._see_gone, life, rank, request.attempt_key)
                self._on_node(agent.node, self._timeline.timings.gone_s, tell)
            elif process.ended is not None:
                self._tell_again(process)
            else:
                process.told_to_stop = True
                self._on_node(agent.node, delay, partial(self._finish, life, process, _STOPPED))

    def wind_down(self, life: SimLife, grace_s: float) -> float:
        """Tell all work of a life to stop; return the seconds until it has ended or its grace is over."""
        wait = 0.0
        for process in life.running():
            process.told_to_stop = True
            delay = min(self._timeline.timings.stop_s, grace_s)
            self._on_node(process.node, delay, partial(self._finish, life, process, _STOPPED))
            wait = max(wait, grace_s if process.node.frozen else delay)
        return wait

    def clear(self, life: SimLife, attempt: str | None) -> None:
        """End all work of a life that is given back, this attempt or others, and tell of every host that is clear.

        A machine that stands still ends it as the first thing that it does when it goes on.
        """
        keys = {key for key, _ in life.processes} | ({attempt} if attempt else set())
        life.stopped |= keys
        for rank, agent in enumerate(life.agents):
            node = agent.node
            if node.alive:
                for key in sorted(keys):
                    action = partial(self._end_for_good, life, rank, key)
                    if node.frozen:
                        node.deferred.insert(0, action)
                    else:
                        action()
            elif not node.given_up:
                died = HostDied(life.id, rank)
                self._timeline.after(self._timeline.timings.detect_s, partial(self._told.append, died))

    def _end_for_good(self, life: SimLife, rank: int, attempt: str) -> None:
        process = life.processes.get((attempt, rank))
        if process is not None and process.ended is None:
            self._finish(life, process, _STOPPED)
        gone = ProcessGone(life.id, rank, attempt)
        self._timeline.after(self._timeline.timings.gone_s, partial(self._told.append, gone))

    def kill(self, life: SimLife) -> None:
        """End all processes of a life by force."""
        for process in list(life.running()):
            self._finish(life, process, _STOPPED)

    def node_died(self, life: SimLife, rank: int, detail: str) -> None:
        """Let the processes on a host end with it; the calls that are open to them fail a little later."""
        for process in list(life.running()):
            if process.rank == rank:
                attempt = process.request.attempt.key
                outcome = Outcome(OutcomeKind.LOST, detail)
                process.ended = ProcessEnded(life.id, rank, attempt, outcome)
                tell = partial(self._told.append, process.ended)
                self._timeline.after(self._timeline.timings.detect_s, tell)

    def _start(self, life: SimLife, process: SimProcess) -> None:
        if process.ended is not None:
            return
        attempt = process.request.attempt.key
        if attempt in life.stopped:
            self._finish(life, process, _STOPPED)
            return
        process.started = ProcessStarted(life.id, process.rank, attempt)
        self._told.append(process.started)
        packed = process.request.attempt.work
        takes_s = packed.takes_s if isinstance(packed, SimWork) else None
        span_s = self._timeline.timings.work_s if takes_s is None else takes_s
        self._on_node(process.node, span_s, partial(self._work, life, process))

    def _work(self, life: SimLife, process: SimProcess) -> None:
        if process.ended is None:
            with running_as(process):
                outcome = run_work(process.request.attempt.work)
            if outcome.kind is OutcomeKind.RAISED:
                outcome = replace(outcome, unasked=not process.told_to_stop)
            self._finish(life, process, outcome)

    def _finish(self, life: SimLife, process: SimProcess, outcome: Outcome) -> None:
        if process.ended is not None:
            return
        attempt = process.request.attempt.key
        process.ended = ProcessEnded(life.id, process.rank, attempt, outcome)
        self._told.append(process.ended)
        tell = partial(self._see_gone, life, process.rank, attempt)
        self._on_node(process.node, self._timeline.timings.gone_s, tell)

    def _see_gone(self, life: SimLife, rank: int, attempt: str) -> None:
        """Tell that nothing of an attempt is left on a host, if there still is an agent to see it."""
        if not life.agents[rank].answers:
            return
        gone = ProcessGone(life.id, rank, attempt)
        self._told.append(gone)
        process = life.processes.get((attempt, rank))
        if process is not None:
            process.gone = gone

    def _tell_again(self, process: SimProcess) -> None:
        known = (process.started, process.ended, process.gone)
        self._told.extend(event for event in known if event is not None)

    def _on_node(self, node: SimNode, delay_s: float, action: Action) -> None:
        """Let something happen on a machine: not if that is dead by then, and later if it stands still."""

        def happen() -> None:
            if node.frozen and node.alive:
                node.deferred.append(action)
            elif node.alive:
                action()

        self._timeline.after(delay_s, happen)
