"""One virtual host of a `VirtualCluster`, seen from the process that owns the cluster.

Starts the host's process (`node.py`, by path), waits for its report, and stops, kills or
freezes what belongs to it. Does not import ray.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sliceform.controller.model.topology import PodType
from sliceform.controller.testing.virtual import processes
from sliceform.controller.testing.virtual.plan import HostPlan, environment
from sliceform.states.errors import SliceformError

_NODE_SCRIPT = Path(__file__).with_name("node.py")
_LOG_TAIL = 4000
_POLL_S = 0.02


class VirtualClusterError(SliceformError):
    """A virtual cluster or host did not start, is not there, or did not end in time."""


class VirtualHost:
    """A raylet and all that belongs to it: real processes of this machine, in a session of their own."""

    def __init__(self, plan: HostPlan) -> None:
        self._plan = plan
        self._report: dict[str, Any] | None = None
        self._buffer = b""
        self._ended = False
        report_read, report_write = os.pipe()
        try:
            with plan.log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(_NODE_SCRIPT), str(report_write)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment(plan),
                    pass_fds=(report_write,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(report_read)
            raise
        finally:
            os.close(report_write)
        self._report_fd = report_read
        spec = {"params": dict(plan.params), "head": plan.head, "metrics": plan.metrics}
        # A process that died at once is told by its missing report, with its log.
        with contextlib.suppress(BrokenPipeError):
            self._tell(json.dumps(spec))

    def __repr__(self) -> str:
        return f"<VirtualHost {self.name} {'alive' if self.alive else 'not alive'}>"

    @property
    def name(self) -> str:
        """Unique in its cluster."""
        return self._plan.name

    @property
    def slice(self) -> str | None:
        """The name of its slice, or None for a plain host."""
        return self._plan.slice_name

    @property
    def worker_id(self) -> int | None:
        """The TPU worker id in its slice, or None for a plain host."""
        return self._plan.worker_id

    @property
    def node_id(self) -> str:
        """Ray's node id, as hexadecimal text.

        Raises:
            VirtualClusterError: the host is not known to have registered; wait for it first.
        """
        return str(self._reported()["node_id"])

    @property
    def address(self) -> str:
        """The address of the GCS that it registered with, as `ray.init` takes it."""
        return str(self._reported()["address"])

    @property
    def pid(self) -> int:
        """The process id of its first process, which is also its session."""
        return self._process.pid

    @property
    def raylet_pid(self) -> int:
        """The process id of its raylet."""
        return int(self._reported()["raylet_pid"])

    @property
    def alive(self) -> bool:
        """Whether its raylet runs (or is frozen)."""
        return self._report is not None and not self._ended and self._raylet_state() is not None

    @property
    def frozen(self) -> bool:
        """Whether its raylet is stopped by a signal."""
        return self.alive and self._raylet_state() in ("T", "t")

    def pids(self) -> set[int]:
        """All living processes that belong to it, whatever session they moved to."""
        # The session is ours to name as long as its leader is not reaped: `end` does that, last.
        return set() if self._ended else processes.members(self._plan.mark, session=self.pid)

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until its raylet is registered with the GCS.

        Raises:
            VirtualClusterError: it failed, or is not there after `timeout_s` seconds; with its log.
        """
        deadline = time.monotonic() + timeout_s
        while self._report is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._report_fd], [], [], left)[0]:
                raise VirtualClusterError(
                    f"virtual host {self.name} did not register in {timeout_s:g} s\n{self.log_tail()}"
                )
            chunk = os.read(self._report_fd, 65536)
            self._buffer += chunk
            if chunk:
                continue
            report = json.loads(self._buffer or b'{"error": "its process ended"}')
            if "error" in report:
                raise VirtualClusterError(
                    f"virtual host {self.name} did not start: {report['error']}\n{self.log_tail()}"
                )
            self._report = report

    def ask_to_stop(self) -> None:
        """Ask for a clean end, if it has not ended; `end` waits for it."""
        if self._ended:
            return
        with contextlib.suppress(OSError):
            self._tell("stop")

    def end(self, *, grace_s: float = 0.0) -> None:
        """Wait up to `grace_s` seconds for a clean end, then kill whatever is left of it.

        Raises:
            TimeoutError: something survives SIGKILL for long.
        """
        if self._ended:
            return
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and processes.state_of(self.pid) is not None:
            time.sleep(_POLL_S)
        processes.kill(self.pids)
        self._ended = True
        self._process.wait()
        os.close(self._report_fd)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def kill_raylet(self, timeout_s: float = 10.0) -> None:
        """SIGKILL the raylet alone and wait until it is gone."""
        processes.send([self.raylet_pid], signal.SIGKILL)
        self._wait_for_raylet((None,), timeout_s)

    def freeze(self, *, raylet_only: bool = False, timeout_s: float = 10.0) -> None:
        """SIGSTOP all of its processes, or the raylet alone, and wait until they stand still."""
        raylet = self.raylet_pid
        processes.freeze((lambda: {raylet}) if raylet_only else self.pids, timeout_s=timeout_s)

    def thaw(self, timeout_s: float = 10.0) -> None:
        """SIGCONT all of its processes."""
        processes.send(self.pids(), signal.SIGCONT)
        self._wait_for_raylet(("R", "S", "D", "I", None), timeout_s)

    def log_tail(self) -> str:
        """The end of what its first process and Ray's start wrote."""
        try:
            text = self._plan.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        except OSError:
            text = ""
        return f"--- {self._plan.log} ---\n{text.strip() or '(empty)'}"

    def _reported(self) -> dict[str, Any]:
        if self._report is None:
            raise VirtualClusterError(f"virtual host {self.name} has not registered yet")
        return self._report

    def _raylet_state(self) -> str | None:
        return processes.state_of(self.raylet_pid)

    def _wait_for_raylet(self, states: Sequence[str | None], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._raylet_state() not in states:
            if time.monotonic() > deadline:
                raise VirtualClusterError(
                    f"the raylet of virtual host {self.name} is in state {self._raylet_state()} after {timeout_s:g} s"
                )
            time.sleep(_POLL_S)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()


@dataclass(frozen=True)
class VirtualSlice:
    """A virtual TPU slice: the hosts that share a slice name."""

    name: str
    kind: PodType
    #: In the order of their worker ids; hosts left out as missing are not here.
    hosts: tuple[VirtualHost, ...]

    @property
    def pod_type(self) -> str:
        """For example `v4-16`."""
        return self.kind.pod_type
