"""Attempts end: report how each task ended, see to it that nothing of it is left on its host, stop it when asked to.

Everything here runs on the I/O thread. What is asked of an agent is never waited for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import ray
import structlog

from sliceform.controller.model.effects import Stop
from sliceform.controller.model.events import (
    EffectFailed,
    HostDied,
    Outcome,
    OutcomeKind,
    ProcessEnded,
    ProcessGone,
    ProcessStarted,
)
from sliceform.controller.ray_backend import outcomes
from sliceform.controller.ray_backend.agents import Agents, kill
from sliceform.controller.ray_backend.failures import blame, words
from sliceform.controller.ray_backend.fence import Fences, Host, Verdict
from sliceform.controller.ray_backend.lives import AgentHandle, Holding, HostTask, Stage, Work
from sliceform.controller.ray_backend.session import Answer, Session
from sliceform.states.effects import Effect
from sliceform.states.reasons import Reason

log = structlog.get_logger(__name__)

#: How long a process that has given its answer may take to leave by itself, for the user's exit handlers, seconds.
_LEAVE_S = 5.0
#: How long a host may take to say what came first, seconds.
_ANSWER_S = 10.0
#: How much longer than its grace a stop may take before the task is cancelled without the agent, seconds.
_STOP_MARGIN_S = 5.0


class Endings:
    """Carries out `Stop`, and follows every task to its end."""

    def __init__(self, session: Session, holdings: Mapping[str, Holding], agents: Agents, fences: Fences) -> None:
        """Take what it works with; `holdings` are all lives, by id."""
        self._session = session
        self._holdings = holdings
        self._agents = agents
        self._fences = fences

    def stop(self, holding: Holding, request: Stop) -> None:
        """End the attempt on every host of this slice."""
        work = holding.attempts.get(request.attempt_key)
        if work is not None:
            self.wind_down(holding, work, request.grace_s)
            return
        holding.stopped.add(request.attempt_key)
        for agent in holding.agents:
            if agent.serves:
                ref = agent.actor.stop.remote(request.attempt_key, request.grace_s)
                self._session.when_done(ref, partial(self._nothing_left, agent, request.attempt_key))

    def wind_down(self, holding: Holding, work: Work, grace_s: float) -> None:
        """Ask, wait and force on every host; the tasks of hosts that do not answer are cancelled without them."""
        work.stopping = True
        for task in work.tasks:
            if task.gone is not None:
                self.tell_again(task)
                continue
            if task.envelope is None:
                self.end(holding, work, task, outcomes.stopped())
            self._clear(holding, work, task, grace_s)
            if task.running:
                # By name: what is over by then must not be kept for it.
                late = partial(self._cancel_late, holding.slice_id, work.key, task.rank)
                self._session.io.put(late, grace_s + _STOP_MARGIN_S)

    def clear(self, holding: Holding, attempt: str | None) -> None:
        """Find out of every host of a life that is given back when nothing of its work is left there.

        `attempt` may never have come this far.
        """
        if attempt is not None and attempt not in holding.attempts:
            for agent in holding.agents:
                self._session.post(ProcessGone(holding.slice_id, agent.rank, attempt))
        for work in holding.attempts.values():
            work.stopping = True
            for task in work.tasks:
                if task.gone is None and task.envelope is None:
                    self._gone(work, task, ProcessGone(holding.slice_id, task.rank, work.key))
                elif task.gone is None and not task.asked:
                    task.asked = True
                    self._ask_past_ray(holding, work, task)

    def tell_gone(self, holding: Holding) -> None:
        """Say once more which hosts are clear of what work."""
        for work in holding.attempts.values():
            for task in work.tasks:
                if task.gone is not None:
                    self._session.post(task.gone)

    def ended(self, holding: Holding, work: Work, task: HostTask, answer: Answer) -> None:
        """Report how a task has ended, by its answer or by what Ray says became of it."""
        error = answer.exception()
        if error is None:
            if task.started is None:
                # So quick that its answer came before its agent saw it.
                task.started = ProcessStarted(holding.slice_id, task.rank, work.key)
                self._session.post(task.started)
            self.end(holding, work, task, outcomes.from_envelope(answer.result(), task.value))
            return
        # What befell the task befell its value, too.
        self._session.disregard(task.value)
        releasing = holding.stage is not Stage.HELD
        outcome = outcomes.from_error(error, stopping=work.stopping, releasing=releasing)
        if outcomes.may_be_loss(error):
            if outcome.kind is OutcomeKind.CRASHED:
                agent = holding.agents[task.rank]
                self._agents.doubt(agent, partial(self._crashed, holding, work, task, outcome))
            else:
                self._died(holding, work, task, words(error))
            return
        self.end(holding, work, task, outcome)
        if outcome.kind is OutcomeKind.LOST and not releasing:
            verdict = blame(error)
            reason = getattr(verdict, "reason", Reason.NODE_DIED)
            self._agents.lose(holding.agents[task.rank], reason, outcome.detail)

    def _crashed(self, holding: Holding, work: Work, task: HostTask, outcome: Outcome, refused: bool) -> None:  # noqa: FBT001
        """Tell a process that died from one whose host did."""
        if not refused:
            self._died(holding, work, task, outcome.detail)
            return
        self.end(holding, work, task, outcomes.lost(outcome.detail))
        detail = f"its raylet refuses connections: {outcome.detail}"
        self._agents.lose(holding.agents[task.rank], Reason.NODE_DIED, detail)

    def _died(self, holding: Holding, work: Work, task: HostTask, detail: str) -> None:
        """Tell of a process that died, once its host has said which was first, or for so long has not."""
        ours = work.stopping or not holding.held
        asked = ours or work.told
        if task.unasked is None and holding.agents[task.rank].serves:
            if task.died is None:
                late = partial(self._unanswered, holding.slice_id, work.key, task.rank)
                self._session.io.put(late, _ANSWER_S)
            task.died = detail
            self._clear(holding, work, task, _LEAVE_S if work.told and not ours else 0.0)
            return
        if task.cut:
            self.end(holding, work, task, outcomes.lost(f"its host ended it: {task.cut}"))
            return
        self.end(holding, work, task, outcomes.died(detail, unasked=task.unasked or not asked, ours=ours))

    def _unanswered(self, slice_id: str, key: str, rank: int) -> None:
        """Tell of a process that died though its host does not say what came first."""
        holding = self._holdings.get(slice_id)
        work = holding.attempts.get(key) if holding is not None else None
        if holding is None or work is None or work.tasks[rank].ended is not None:
            return
        task = work.tasks[rank]
        task.unasked = False
        self._died(holding, work, task, task.died or "")

    def end(self, holding: Holding, work: Work, task: HostTask, outcome: Outcome) -> None:
        """Report an end, once, and see to it that nothing is left on the host."""
        if task.ended is not None:
            return
        task.ended = ProcessEnded(holding.slice_id, task.rank, work.key, outcome)
        self._session.post(task.ended)
        if outcome.kind is not OutcomeKind.LOST and task.gone is None:
            leave_s = _LEAVE_S if outcome.kind is not OutcomeKind.STOPPED else 0.0
            self._clear(holding, work, task, leave_s)

    def _clear(self, holding: Holding, work: Work, task: HostTask, grace_s: float) -> None:
        """Let the agent see to it that nothing of the attempt is left on the host."""
        agent = holding.agents[task.rank]
        if agent.serves:
            ref = agent.actor.stop.remote(work.key, grace_s)
            self._session.when_done(ref, partial(self._cleared, holding, work, task))

    def _cleared(self, holding: Holding, work: Work, task: HostTask, answer: Answer) -> None:
        error = answer.exception()
        if error is not None:
            if task.died is not None:
                task.unasked = False
                self._died(holding, work, task, task.died)
            if holding.held:
                self._not_cleared(holding.agents[task.rank], work.key, error)
            return
        holding.agents[task.rank].failing_since = None
        said = answer.result()
        task.unasked, task.cut = said["unasked"], said["cut"]
        self._gone(work, task, ProcessGone(holding.slice_id, task.rank, work.key))
        if task.died is not None:
            self._died(holding, work, task, task.died)
        elif not task.unasked:
            self._cancel(work, task)  # its process was killed or never came; now its reference must end, too

    def _gone(self, work: Work, task: HostTask, told: ProcessGone | HostDied) -> None:
        if task.gone is None:
            task.gone = told
            self._session.post(told)
            work.let_go()

    def _ask_past_ray(self, holding: Holding, work: Work, task: HostTask) -> None:
        agent = holding.agents[task.rank]
        assert agent.up is not None
        assert agent.ports is not None
        host = Host(
            agent.up.node_id,
            agent.up.address,
            agent.ports["door"],
            agent.ports["alive"],
            self._agents.raylet(agent),
            "/".join((self._session.fleet.incarnation, f"{holding.slice_id}-{task.rank}", work.key.replace("/", "-"))),
        )
        self._fences.ask(host, lambda verdict: self._session.io.put(partial(self._found, holding, work, task, verdict)))

    def _found(self, holding: Holding, work: Work, task: HostTask, verdict: Verdict) -> None:
        if verdict is Verdict.CLEAR:
            self._gone(work, task, ProcessGone(holding.slice_id, task.rank, work.key))
        elif verdict is Verdict.DIED:
            self._gone(work, task, HostDied(holding.slice_id, task.rank))
        agent = holding.agents[task.rank]
        if agent.closed:
            kill(agent)  # it was left alive so that it could answer

    def _cancel(self, work: Work, task: HostTask) -> None:
        if not task.running:
            return
        try:
            ray.cancel(task.envelope, force=True)
        except (ray.exceptions.RayError, ValueError, TypeError) as error:
            log.warning("task_not_cancelled", attempt=work.key, rank=task.rank, cause=repr(error))

    def _cancel_late(self, slice_id: str, key: str, rank: int) -> None:
        holding = self._holdings.get(slice_id)
        work = holding.attempts.get(key) if holding is not None else None
        if work is not None:
            self._cancel(work, work.tasks[rank])

    def _nothing_left(self, agent: AgentHandle, key: str, answer: Answer) -> None:
        error = answer.exception()
        if error is None:
            self._session.post(ProcessGone(agent.slice_id, agent.rank, key))
        elif agent.serves:
            self._not_cleared(agent, key, error)

    def _not_cleared(self, agent: AgentHandle, key: str, error: BaseException) -> None:
        log.warning("host_not_cleared", slice=agent.slice_id, rank=agent.rank, attempt=key, cause=repr(error))
        if not self.unfit(agent, f"host {agent.rank} cannot be freed of {key}: {words(error)}"):
            self._session.post(EffectFailed(agent.slice_id, Effect.STOP, f"host {agent.rank}: {words(error)}"))

    def tell_again(self, task: HostTask) -> None:
        """Say once more what has been reported of a task."""
        for event in (task.started, task.ended, task.gone):
            if event is not None:
                self._session.post(event)

    def unfit(self, agent: AgentHandle, detail: str) -> bool:
        """Give a host up that fails at this for longer than a host may take to become ready; return whether it does."""
        now = time.monotonic()
        if agent.failing_since is None:
            agent.failing_since = now
        if now - agent.failing_since < self._session.fleet.settings.placed_s:
            return False
        self._agents.lose(agent, Reason.HOST_UNFIT, detail)
        return True
