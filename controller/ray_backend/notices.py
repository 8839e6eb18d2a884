"""Hear of notices: one call is held open to every agent, answered when the notices that stand there change.

The agent is told what is known here, so an answer that was lost is made up for by the next. On the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sliceform.controller.errors import UnpicklableFunctionError
from sliceform.controller.model.events import HostNoticed, NoticeWithdrawn
from sliceform.controller.on_host.parcel import wrap
from sliceform.controller.ray_backend.lives import AgentHandle
from sliceform.controller.ray_backend.session import Answer, Session


class Notices:
    """Opens calls, and reports what changed."""

    def __init__(
        self,
        session: Session,
        failed: Callable[[AgentHandle, BaseException], None],
        confirm: Callable[[AgentHandle, str], bool],
    ) -> None:
        """Take where to report, whom to tell of a call that failed, and who confirms that a source means a notice."""
        self._session = session
        self._failed = failed
        self._confirm = confirm

    def open(self, agent: AgentHandle) -> None:
        """Open the call to an agent that has none; after a failure, open it again."""
        if agent.serves:
            self._session.when_done(agent.actor.notices.remote(agent.notices), partial(self._told, agent))

    def tell_again(self, agent: AgentHandle) -> None:
        """Report once more what stands."""
        for source, deadline in agent.notices.items():
            self._session.post(HostNoticed(agent.slice_id, agent.rank, source, deadline))

    def _told(self, agent: AgentHandle, answer: Answer) -> None:
        if not agent.serves:
            return
        error = answer.exception()
        if error is not None:
            self._failed(agent, error)
            return
        before, after = agent.notices, answer.result()
        if not all(self._confirm(agent, source) for source in after.keys() - before.keys()):
            return
        agent.notices = after
        for source, deadline in agent.notices.items():
            if source not in before or before[source] != deadline:
                self._session.post(HostNoticed(agent.slice_id, agent.rank, source, deadline))
        for source in before.keys() - agent.notices.keys():
            self._session.post(NoticeWithdrawn(agent.slice_id, agent.rank, source))
        self.open(agent)


def pack_source(source: Callable[[], bool | float | None] | None) -> tuple[bytes, tuple[Any, ...]] | None:
    """Pickle the user's function, to be called on every host; a plain tuple, which Ray opens before our code is there.

    Raises:
        UnpicklableFunctionError: it cannot be pickled.

    """
    if source is None:
        return None
    try:
        return tuple(wrap(source))  # type: ignore[return-value]
    except Exception as error:
        raise UnpicklableFunctionError("notice_source", str(error) or repr(error)) from error
