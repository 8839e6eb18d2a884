"""The agent: one zero-CPU actor per host that answers for it.

It says where it is and what the host has, beats, makes the host clean before an attempt, passes on that work is to
stop, and ends the attempt's processes. The function itself runs in a process of its own, which the driver submits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import Any

import ray

from sliceform.controller.on_host import processes
from sliceform.controller.on_host.channel import Channel, sweep

#: How often it looks whether a process has come or gone, seconds: at first, and at most.
_LOOK_S = 0.01
_LOOK_MAX_S = 0.2
#: How long killed processes may take to be gone, seconds.
_KILLED_S = 30.0


class Agent:
    """Answers for one host of one life."""

    def __init__(self, life: str, rank: int, incarnation: str) -> None:
        """Take whose host this is."""
        self._host = f"{life}/{rank}"
        self._incarnation = incarnation
        self._raylet = os.getppid()
        self._attempts: set[str] = set()

    def describe(self) -> dict[str, Any]:
        """Say where this is and what the node has."""
        context = ray.get_runtime_context()
        node_id = context.get_node_id()
        worker_id = os.environ.get("TPU_WORKER_ID")
        return {
            "node_id": node_id,
            "address": ray.util.get_node_ip_address(),
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            "slice_name": os.environ.get("TPU_NAME"),
            "worker_id": int(worker_id) if worker_id else None,
        }

    async def beat(self, interval_s: float) -> bool:
        """Answer after `interval_s` seconds whether this node's raylet, which started this process, is well."""
        await asyncio.sleep(interval_s)
        return os.getppid() == self._raylet and processes.healthy(self._raylet)

    async def prepare(self, attempt: str, *, want_ports: bool) -> dict[str, Any]:
        """End what earlier attempts of this life left, and say at what address and free ports others can meet."""
        for old in self._attempts - {attempt}:
            await self.stop(old, 0.0)
        sweep()
        self._attempts = {attempt}
        return {"address": ray.util.get_node_ip_address(), "ports": _free_ports(2) if want_ports else []}

    async def wait_started(self, attempt: str) -> int:
        """Return the process id once the attempt's process has registered; waits as long as that takes."""
        channel = self._channel(attempt)
        look_s = _LOOK_S
        while (pid := channel.pid()) is None:
            await asyncio.sleep(look_s)
            look_s = min(_LOOK_MAX_S, look_s * 1.2)
        return pid

    def notify(self, attempt: str, deadline_epoch_s: float | None) -> None:
        """Make `should_stop()` true in the attempt's process."""
        self._channel(attempt).ask_to_stop(deadline_epoch_s)

    async def stop(self, attempt: str, grace_s: float) -> int:
        """End the attempt on this host: ask, wait `grace_s` seconds, then kill; return how many had to be killed.

        One that starts later finds that it came too late.

        Raises:
            TimeoutError: killed processes are still there after half a minute.

        """
        channel = self._channel(attempt)
        if grace_s > 0 and self._left(attempt, channel):
            channel.ask_to_stop(time.time() + grace_s)
            end = time.monotonic() + grace_s
            while self._left(attempt, channel) and time.monotonic() < end:  # noqa: ASYNC110 - /proc has no events
                await asyncio.sleep(0.02)
        channel.bury()
        killed: set[int] = set()
        end = time.monotonic() + _KILLED_S
        while left := self._left(attempt, channel):
            if time.monotonic() > end:
                raise TimeoutError(
                    f"processes {sorted(left)} of {attempt} are still there {_KILLED_S:g} s after SIGKILL"
                )
            for pid in left:
                processes.kill(pid)
            killed |= left
            await asyncio.sleep(_LOOK_S)
        return len(killed)

    def _left(self, attempt: str, channel: Channel) -> set[int]:
        return processes.members(self._mark(attempt), channel.pid() if channel.held() else None)

    def _mark(self, attempt: str) -> str:
        return f"{self._incarnation}:{self._host}:{attempt}"

    def _channel(self, attempt: str) -> Channel:
        return Channel(self._incarnation, self._host, attempt)


def _free_ports(count: int) -> list[int]:
    """Return different ports that are free on this host at this moment."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]
