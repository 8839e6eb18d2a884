"""What the driver hands to Ray to run on hosts: the agent's class and the function of a host's task.

Both carry the sources of everything that hosts need inside their own definition, which Ray sends once per connection
and every process fetches anyway.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ray

from sliceform.controller.on_host import bootstrap, remote, sigterm

#: Enough for the calls that are open to an agent at a time.
_AGENT_CALLS = 64


class Shipped(NamedTuple):
    """Ray's handles."""

    agent: Any
    run_host: Any
    clear_host: Any


def ship() -> Shipped:
    """Make the handles for the present connection."""
    for module in (bootstrap, remote, sigterm):
        ray.cloudpickle.register_pickle_by_value(module)
    sources = bootstrap.sources()

    class AgentActor(remote.AgentActor):
        """The agent of one host, with its sources."""

        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(sources, config)

    def run_host(call: dict[str, Any], work: bytes, held: tuple[Any, ...]) -> tuple[dict[str, Any], Any]:
        return remote.run_host(sources, call, work, held)

    def clear_host(mark: str) -> None:
        remote.clear_host(sources, mark)

    agent = ray.remote(
        num_cpus=0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=_AGENT_CALLS,
        # A beat of every host every few seconds is nothing to keep events of.
        enable_task_events=False,
    )(AgentActor)
    return Shipped(
        agent,
        ray.remote(max_calls=1, max_retries=0, num_returns=2)(run_host),
        ray.remote(num_cpus=0, max_calls=1, max_retries=0)(clear_host),
    )
