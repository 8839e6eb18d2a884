"""The agent: one zero-CPU actor per host that answers for it.

It says where it is, beats, makes the host clean before an attempt, passes on that work is to stop, and ends the
attempt's processes. The function itself runs in a process of its own, which the driver submits.

Its start is paid on every host of every slice: what only serves an attempt is imported when the first one comes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray

from sliceform.controller.on_host import proc as processes

#: How often it looks whether a process has come, seconds: at first, and at most.
_LOOK_S = 0.01
_LOOK_MAX_S = 0.2
#: How long a call for notices is held open though nothing changes, seconds.
_HELD_S = 120.0
#: How long a process that has raised may take to say what, seconds: its peers raise for that, and may be heard first.
_ANSWER_S = 1.0


class Agent:
    """Answers for one host of one life."""

    def __init__(
        self,
        slice_id: str,
        rank: int,
        incarnation: str,
        *,
        fence_s: float = 20.0,
        ports: range = range(20_000, 32_000),
        watch: dict[str, Any] | None = None,
        clean: dict[str, Any] | None = None,
        term: Any = None,
    ) -> None:
        """Take whose host this is, how long it may go unheard, where attempts may meet, and what sees SIGTERM.

        `watch` and `clean` are keyword arguments for `notices.NoticeWatch` and `devices.clean`.
        """
        self._host = f"{slice_id}/{rank}"
        self._incarnation = incarnation
        self._parent = os.getppid()
        self._raylet = processes.ancestor(b"raylet")
        self._watch = watch or {"metadata": False}
        self._clean = clean or {}
        self._term = term
        self._fence_s = fence_s
        self._ports = ports
        self._guard: Any = None
        self._standing: Any = None
        #: Open for the life of this process; see `channel`.
        self._registered: int | None = None

    def describe(self) -> dict[str, Any]:
        """Say where this is.

        Returns:
            `node_id` and `address` as Ray has them, `pid`, `hostname`, and what the host's environment says of its
            place in a TPU slice: `slice_name` and `worker_id`, or None.

        """
        worker_id = os.environ.get("TPU_WORKER_ID", "")
        return {
            "node_id": ray.get_runtime_context().get_node_id(),
            "address": ray.util.get_node_ip_address(),
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            "slice_name": os.environ.get("TPU_NAME"),
            "worker_id": int(worker_id) if worker_id.isdecimal() else None,
        }

    async def beat(self, interval_s: float) -> bool:
        """Answer after `interval_s` seconds whether this node's raylet is well: there, and not stopped."""
        if self._guard is not None:
            self._guard.heard()
        await asyncio.sleep(interval_s)
        return not self._raylet_gone() and (self._raylet is None or processes.healthy(self._raylet))

    def _raylet_gone(self) -> bool:
        """Whether this node's raylet has ended, which ends its agents and workers soon, too."""
        return os.getppid() != self._parent

    async def notices(self, known: dict[str, float | None]) -> dict[str, float | None]:
        """Return the notices that stand, by source, as soon as they are not those known, or after two minutes.

        The first call begins to watch. Deadlines are in epoch seconds; None where none is known.
        """
        if self._standing is None:
            from sliceform.controller.on_host.notice_board import Standing
            from sliceform.controller.on_host.notices import SIGTERM, NoticeWatch

            self._standing = Standing()
            if self._term is not None:
                self._term.heed(partial(self._standing.put, SIGTERM, None))
            # Its threads end with this process.
            self._watching = NoticeWatch(self._standing, **self._watch)
        found: dict[str, float | None] = await self._standing.other_than(known, _HELD_S)
        return found

    async def prepare(self, attempt: str, *, want_ports: bool) -> dict[str, Any]:
        """End what earlier attempts of ours left on this host, and say where the attempt's hosts can meet.

        What keeps its accelerators from the attempt is dealt with as the settings say; see `devices`.

        Returns:
            `address` of this host, and `meet`: two `address:port` that are free at this moment if asked for, else none;
            `door` and `alive`: see `guard.Guard.ports`.

        Raises:
            TimeoutError: processes of an earlier attempt of this life cannot be ended.
            OSError: no two of the ports are free.

        """
        from sliceform.controller.on_host import attempt_folder as channel
        from sliceform.controller.on_host import cleanup, devices, ports

        own = channel.Channel(self._incarnation, self._host, attempt).folder
        if self._registered is None:
            self._registered = channel.lock(own.parent / "agent")
        if self._guard is None:
            self._guard = self._begin_to_guard(own.parent)
        for folder in cleanup.folders(own.parent):
            if folder != own:
                await cleanup.finish(channel.Channel.at(folder))
        await cleanup.sweep(own.parent)
        await devices.clean(**self._clean)
        address = ray.util.get_node_ip_address()
        meet = [ports.joined(address, port) for port in ports.free(self._ports, 2)] if want_ports else []
        return {"address": address, "meet": meet, **self._guard.ports}

    def _begin_to_guard(self, folder: Path) -> Any:
        from sliceform.controller.on_host.guard import Guard

        gcs = None
        if ray.is_initialized():
            host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
            gcs = (host.strip("[]"), int(port))
        guard = Guard(folder, self._fence_s, self._raylet_gone, gcs)
        guard.start()
        return guard

    async def wait_started(self, attempt: str) -> int:
        """Return the process id once the attempt's process has registered; waits as long as that takes.

        Raises:
            RuntimeError: the attempt was stopped before its process registered.

        """
        channel = self._channel(attempt)
        look_s = _LOOK_S
        while (leader := channel.leader()) is None:
            if channel.buried():
                raise RuntimeError(f"{attempt} was stopped before its process started")
            await asyncio.sleep(look_s)
            look_s = min(_LOOK_MAX_S, look_s * 1.2)
        return int(leader.pid)

    def notify(self, attempt: str, deadline_epoch_s: float | None) -> None:
        """Make `should_stop()` true in the attempt's process, also if it starts later."""
        self._channel(attempt).ask_to_stop(deadline_epoch_s)

    async def stop(self, attempt: str, grace_s: float) -> dict[str, Any]:
        """End the attempt on this host: ask, wait `grace_s` seconds, then kill.

        One that starts later finds that it came too late. One that has raised may say what, whatever the grace.

        Returns:
            How many processes were `killed`; whether the user's process had ended `unasked`: it was dead when this
            host was first told to stop it; and why this host had `cut` it off by its own clock, empty if it had not.

        Raises:
            TimeoutError: killed processes are still there after half a minute.

        """
        from sliceform.controller.on_host import cleanup

        channel = self._channel(attempt)
        if grace_s > 0 and channel.held():
            channel.ask_to_stop(time.time() + grace_s)
        await cleanup.ended(channel, max(grace_s, _ANSWER_S) if channel.answers() else grace_s)
        channel.bury()
        killed = await cleanup.kill(channel)
        return {"killed": killed, "unasked": channel.ended_unasked(), "cut": channel.why_cut()}

    def _channel(self, attempt: str) -> Any:
        from sliceform.controller.on_host.attempt_folder import Channel

        return Channel(self._incarnation, self._host, attempt)
