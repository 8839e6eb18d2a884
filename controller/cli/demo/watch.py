"""Watch the fleet and the training while the run goes on, and kill a host in its midst."""

from __future__ import annotations

import random
import time

from sliceform.controller import SliceController
from sliceform.controller.api.run import Run
from sliceform.controller.cli.demo.progress import ProgressReader, Report
from sliceform.controller.cli.demo.show import Screen
from sliceform.controller.cli.demo.train import Plan
from sliceform.controller.cli.demo.verdict import Kill
from sliceform.controller.model.status import HostStatus, SliceStatus
from sliceform.controller.testing import VirtualCluster

#: The host is killed at the first report after this part of the steps.
_KILL_AFTER = 0.45
#: How often the history and the progress are looked at, seconds.
_LOOK_S = 0.05
#: Nothing at all happened for so long: give up, seconds.
_STALLED_S = 120.0
#: How long the processes of the run may take to end after it, seconds.
_IDLE_S = 10.0


class Stalled(Exception):
    """Nothing happens any more."""


class Watch:
    """Shows what happens, as it happens, and keeps what the verdict needs."""

    def __init__(self, fleet: SliceController, run: Run, plan: Plan, screen: Screen) -> None:
        """Watch one run of a fleet."""
        self._fleet = fleet
        self._run = run
        self._plan = plan
        self._screen = screen
        self._reader = ProgressReader(plan.progress)
        self._seen = 0
        self.reports: list[Report] = []
        self.kill: Kill | None = None
        #: Where the slices of the fleet stood when the host was killed.
        self.first_places: frozenset[str] = frozenset()

    def until_over(self, cluster: VirtualCluster, seed: int | None) -> None:
        """Watch until the run is over; with a seed, kill a host that it chooses.

        Raises:
            Stalled: nothing happened for long.

        """
        alive_at = time.monotonic()
        while True:
            over = self._run.done()
            if self.look():
                alive_at = time.monotonic()
            if over:
                return
            if seed is not None and self.kill is None and self._time_to_kill():
                self._kill(cluster, random.Random(seed))
            if time.monotonic() - alive_at > _STALLED_S:
                message = f"nothing happened for {_STALLED_S:g} s; {self._run.status().detail}\n{self._fleet.why()}"
                raise Stalled(message)
            self._run.wait(_LOOK_S)

    def until_idle(self) -> None:
        """Watch until the slices are free again, for a bounded time."""
        end = time.monotonic() + _IDLE_S
        while time.monotonic() < end and self._fleet.status().counts.get("running"):
            time.sleep(_LOOK_S)
            self.look()

    def look(self) -> bool:
        """Show what is new; return whether anything is."""
        reports = self._reader.new()
        for report in reports:
            self._screen.report(report, self._plan.steps)
        self.reports += reports
        changes = self._fleet.history.since(self._seen)
        for change in changes:
            self._seen = change.seq
            self._screen.change(change)
        return bool(changes or reports)

    def _time_to_kill(self) -> bool:
        """Whether the training is in its midst, and has a checkpoint to come back to."""
        saved = any(report.kind == "saved" for report in self.reports)
        return saved and self.reports[-1].step >= _KILL_AFTER * self._plan.steps

    def _kill(self, cluster: VirtualCluster, rng: random.Random) -> None:
        attempt = self._run.attempts[-1]
        rows = {row.id: row for row in self._fleet.status().slices}
        members: list[tuple[SliceStatus, HostStatus]] = [
            (rows[name], host) for name in attempt.slices for host in rows[name].hosts
        ]
        rank = rng.randrange(len(members))
        row, host = members[rank]
        victim = next(virtual for virtual in cluster.hosts if virtual.node_id == host.node_id)
        self.first_places = frozenset(rows[name].place or "" for name in attempt.slices)
        self._screen.line(
            "FAULT", f"SIGKILL to all processes of {row.id}'s host {host.rank} ({victim.name}, rank {rank})"
        )
        self.kill = Kill(
            at=time.time(),
            slice_id=row.id,
            place=row.place or "",
            host=victim.name,
            rank=rank,
            step=self.reports[-1].step,
        )
        cluster.kill_host(victim)
