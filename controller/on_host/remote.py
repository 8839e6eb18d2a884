"""What the driver hands to Ray: thin, pickled by value, so that a host without sliceform can load it."""

from __future__ import annotations

from typing import Any

from sliceform.controller.on_host import bootstrap, sigterm


class AgentActor:
    """The actor on every host; `agent.Agent` does the work."""

    #: Made anew where Ray loads this class.
    _term = sigterm.Term()

    def __init__(self, sources: dict[str, str], config: dict[str, Any]) -> None:
        """Put the shipped modules in place and begin."""
        bootstrap.install(sources)
        from sliceform.controller.on_host.agent import Agent

        self._agent = Agent(**config, term=self._term)

    async def describe(self) -> dict[str, Any]:
        """Say where this is and what it has; see `Agent.describe`."""
        return self._agent.describe()

    async def beat(self, interval_s: float) -> bool:
        """Answer after a while; see `Agent.beat`."""
        return await self._agent.beat(interval_s)

    async def notices(self, known: dict[str, float | None]) -> dict[str, float | None]:
        """Say when the notices that stand change; see `Agent.notices`."""
        return await self._agent.notices(known)

    async def prepare(self, attempt: str, want_ports: bool) -> dict[str, Any]:  # noqa: FBT001 - travels by position
        """Make the host clean for an attempt; see `Agent.prepare`."""
        return await self._agent.prepare(attempt, want_ports=want_ports)

    async def wait_started(self, attempt: str) -> int:
        """Wait for the attempt's process; see `Agent.wait_started`."""
        return await self._agent.wait_started(attempt)

    async def notify(self, attempt: str, deadline_epoch_s: float | None) -> None:
        """Ask the work to stop; see `Agent.notify`."""
        self._agent.notify(attempt, deadline_epoch_s)

    async def stop(self, attempt: str, grace_s: float) -> dict[str, Any]:
        """End the attempt's processes; see `Agent.stop`."""
        return await self._agent.stop(attempt, grace_s)


def clear_host(sources: dict[str, str], mark: str) -> None:
    """End what is left of an attempt on this host, whose agent is gone; see `cleanup.clear`."""
    bootstrap.install(sources)
    import asyncio

    from sliceform.controller.on_host.cleanup import clear

    asyncio.run(clear(mark))


def run_host(
    sources: dict[str, str], call: dict[str, Any], work: bytes, held: tuple[Any, ...]
) -> tuple[dict[str, Any], Any]:
    """Run the user's function in this fresh process; see `process.run`."""
    bootstrap.install(sources)
    from sliceform.controller.on_host.user_process import run

    return run(call, work, held)
