"""What the controller's own work costs at 1,000 slices of 10 hosts: CPU time of its thread, and memory.

No Ray: the cluster is simulated, and what the simulator spends in `poll` and `submit` is taken off. The log is
filtered at WARNING and its loggers are cached, as an application would configure structlog. `--check` fails if a bound
is broken.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import logging
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

import sliceform.controller.reconcile.loop as controller_loop
from sliceform import states
from sliceform.controller.api.controller import SliceController
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.shapes import GpuSlice
from sliceform.controller.testing import FakeClock, SimBackend

SHAPE = GpuSlice(10, 4)
#: No delay of the simulator's is of interest: what is decided in one tick is answered before the next.
SETTINGS = Settings(history_limit=200_000)


@dataclass
class Row:
    """One line of the table."""

    what: str
    value: float
    unit: str
    bound: float | None = None
    note: str = ""

    @property
    def broken(self) -> bool:
        return self.bound is not None and self.value > self.bound


class World:
    """A fleet on a simulated cluster, ticked by hand; tells the loop's time from the simulator's."""

    def __init__(self, slices: int, settings: Settings = SETTINGS) -> None:
        self.clock = FakeClock()
        self.sim = SimBackend(SHAPE, slices, clock=self.clock, work_s=1e9)
        self.slices = slices
        self.simulated_s = 0.0
        for name in ("poll", "submit", "forget", "inquire"):
            setattr(self.sim, name, self._apart(getattr(self.sim, name)))
        self.fleet = SliceController(SHAPE, slices, settings=settings, backend=self.sim, clock=self.clock)

    def _apart(self, call: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            begin = time.thread_time()
            call(*args)
            self.simulated_s += time.thread_time() - begin

        return timed

    def tick(self, seconds: float = 1.0) -> float:
        """Let time pass and tick once; return what the loop alone took, ms."""
        self.clock.advance(seconds)
        self.simulated_s = 0.0
        begin = time.thread_time()
        self.fleet.step()
        return (time.thread_time() - begin - self.simulated_s) * 1e3

    def until_ready(self) -> None:
        for _ in range(100):
            self.tick()
            if self.fleet.status().counts == {"ready": self.slices}:
                self.settle()
                return
        raise RuntimeError(f"the fleet did not become ready: {self.fleet.status().counts}")

    def settle(self) -> None:
        """Let what is in flight end, and the collector finish its work, so that neither is measured later."""
        for _ in range(3):
            self.tick()
        gc.collect()

    def states(self) -> dict[str, int]:
        return self.fleet.status().counts


@dataclass
class Samples:
    """One measurement, repeated in fresh worlds."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def idle_and_one(world: World, samples: int) -> list[Row]:
    """Measure ticks in which nothing happens, and in which one slice is lost, replaced, or comes back."""
    idle = statistics.median(world.tick(0.1) for _ in range(10 * samples))
    lost, replaced = [], []
    for number in range(samples):
        place = world.sim.places[number % len(world.sim.places)]
        world.sim.remove_slice(place)
        # The calls that are open to its hosts fail: preempted, drained and replaced in one tick.
        lost.append(world.tick(0.1))
        world.sim.restore_slice(place)
        changes = world.fleet.history.last_seq
        for _ in range(20):
            took = world.tick(0.2)
            if world.fleet.history.last_seq > changes:
                changes = world.fleet.history.last_seq
                replaced.append(took)
        if world.states() != {"ready": world.slices}:
            raise RuntimeError(f"the replacement is not ready: {world.states()}")
    return [
        Row("idle tick", idle, "ms", 2.0, f"median of {10 * samples}"),
        Row("one slice lost, drained and replaced, more", statistics.median(lost) - idle, "ms", 1.0),
        Row("one slice released, placed or ready, more", statistics.median(replaced) - idle, "ms", 1.0),
    ]


def ups(slices: int) -> tuple[float, float, float]:
    """Return what it took to create all slices, to place them, and to place and prepare all hosts."""
    world = World(slices)
    create = world.tick()
    place = world.tick(0.55)
    if world.states() != {"placed": slices}:
        raise RuntimeError(f"not placed at once: {world.states()}")
    world.tick(0.1)
    prepare = world.tick(5.0)
    if world.states() != {"ready": slices}:
        raise RuntimeError(f"not ready at once: {world.states()}")
    return create, place, prepare


def start_and_preempt(slices: int) -> tuple[float, float, float]:
    """Return what it took to give every slice to one run, to see all processes, and to take in a notice for each."""
    world = World(slices)
    world.until_ready()
    run = world.fleet.submit(int)
    start = world.tick(0.0)
    if world.states() != {"running": slices}:
        raise RuntimeError(f"not started at once: {world.states()}")
    alive = world.tick()
    world.settle()
    for place in world.sim.places:
        world.sim.notice(place, 0, deadline_in_s=600.0)
    preempt = world.tick(0.0)
    if world.states().get("preempted") != slices or run.done():
        raise RuntimeError(f"not preempted at once: {world.states()}")
    return start, alive, preempt


def lose_all(slices: int) -> float:
    """Return what it took to take in the loss of every slice: preempted, drained, and its replacement created."""
    world = World(slices)
    world.until_ready()
    for place in world.sim.places:
        world.sim.kill_host(place, 0)
    took = world.tick(0.1)
    if world.states() != {"pending": slices, "draining": slices}:
        raise RuntimeError(f"not lost at once: {world.states()}")
    return took


def all_at_once(slices: int, repeats: int) -> list[Row]:
    """Measure ticks in which every slice and host of the fleet changes."""
    up = [ups(slices) for _ in range(repeats)]
    work = [start_and_preempt(slices) for _ in range(repeats)]
    loss = [lose_all(slices) for _ in range(repeats)]

    def median(values: list[tuple[float, float, float]], index: int) -> float:
        return statistics.median(value[index] for value in values)

    return [
        Row("all created", median(up, 0), "ms", 400.0),
        Row("all placed", median(up, 1), "ms", 400.0),
        Row("all agents answered", median(up, 2), "ms", 400.0),
        Row("all given to a run", median(work, 0), "ms", 400.0),
        Row("all processes started", median(work, 1), "ms", 400.0),
        Row("all preempted by notice, replacements created", median(work, 2), "ms", 400.0, "two transitions each"),
        Row("all lost, drained, replacements created", statistics.median(loss), "ms", None, "three transitions each"),
    ]


def beat(world: World, count: int = 100_000) -> Row:
    """Measure what it takes to note that one agent was heard."""
    loop = world.fleet._loop
    life = world.fleet.status().slices[0].id
    begin = time.thread_time()
    for _ in range(count):
        loop.beat(life, 3)
    return Row("one beat", (time.thread_time() - begin) / count * 1e6, "us")


def memory(slices: int) -> list[Row]:
    """Measure what a converged fleet keeps, by the module that made it; not the simulator's."""
    homes = [Path(controller_loop.__file__).parent, Path(states.__file__).parent]
    gc.collect()
    tracemalloc.start(4)
    world = World(slices)
    world.until_ready()
    gc.collect()
    taken = tracemalloc.take_snapshot().statistics("traceback")
    tracemalloc.stop()
    ours: dict[str, int] = {}
    for row in taken:
        # The newest frame last; the methods that dataclasses and named tuples generate have no file.
        files = [Path(frame.filename) for frame in row.traceback if not frame.filename.startswith("<")]
        file = files[-1] if files else Path()
        if file.parent in homes:
            ours[file.stem] = ours.get(file.stem, 0) + row.size
    hosts = slices * SHAPE.hosts
    history = ours.get("history", 0)
    top = sorted(ours.items(), key=lambda item: -item[1])[:5]
    detail = ", ".join(f"{name} {size / hosts / 1e3:.2f}" for name, size in top)
    return [
        Row("memory a host", sum(ours.values()) / hosts / 1e3, "kB", 4.0, detail),
        Row("  of it the history", history / hosts / 1e3, "kB", None, f"{len(world.fleet.history)} changes kept"),
    ]


def queue(waiting: int, free: int) -> Row:
    """Measure ticks in which nothing happens while so many runs wait for more slices than are free beside one."""
    world = World(1 + free)
    world.until_ready()
    world.fleet.options(slices=1).submit(int)
    world.tick()
    for _ in range(waiting):
        world.fleet.options(slices=1 + free).submit(int)
    world.settle()
    idle = statistics.median(world.tick(0.1) for _ in range(100))
    return Row(f"idle tick, {waiting} runs queued, {free} slices free", idle, "ms", 1.0, "median of 100")


def pending(slices: int) -> list[Row]:
    """Measure ticks while so many slices are pending, and the one in which the cause of all is noted."""
    world = World(slices)
    for place in world.sim.places:
        world.sim.hold(place)
    took = []
    while not any(change.reason == states.Reason.HELD_UP for change in world.fleet.history.since(slices)):
        took.append(world.tick())
    return [
        Row(f"idle tick, {slices} pending", statistics.median(took[1:-1]), "ms", 1.0),
        Row("  the cause of all noted", took[-1], "ms"),
    ]


def attempts(first: int, last: int) -> Row:
    """Measure how much longer a tick in which nothing happens takes when a run has had more attempts."""
    slices = 16
    world = World(slices, Settings(history_limit=200_000, backoff_max_s=0.5))
    world.until_ready()
    run = world.fleet.options(max_preemptions=last).submit(int)
    took = {}
    for number in range(1, last + 1):
        for _ in range(100):
            if run.record.tries == number and world.states() == {"running": slices}:
                break
            world.tick(0.5)
        else:
            raise RuntimeError(f"attempt {number} does not run: {world.states()}")
        if number in {first, last}:
            world.settle()
            took[number] = statistics.median(world.tick(0.1) for _ in range(50))
        place = world.sim.places[number % slices]
        world.sim.remove_slice(place)
        world.sim.restore_slice(place)
    return Row(f"idle tick, {last} attempts against {first}", took[last] / took[first], "x", 2.0)


def past(few: int, many: int) -> list[Row]:
    """Measure what telling of runs that are over, and explaining as many that wait, takes."""
    told, explained = {}, {}
    for count in (few, many):
        world = World(1)
        world.until_ready()
        for _ in range(count):
            world.fleet.submit(int).cancel()
            world.tick(0.1)
        for _ in range(count):
            world.fleet.submit(int)
        world.settle()
        told[count] = _best(world.fleet.history.runs)
        explained[count] = _best(world.fleet.why)
    return [
        Row(f"history.runs() of {2 * many} runs", told[many] * 1e3, "ms"),
        Row(f"  against {2 * few}", told[many] / told[few], "x", 2.0 * many / few),
        Row(f"why() with {many} queued", explained[many] * 1e3, "ms"),
        Row(f"  against {few}", explained[many] / explained[few], "x", 2.0 * many / few),
    ]


def _best(call: Callable[[], object]) -> float:
    """Return the least CPU time of three calls, seconds."""
    took = []
    for _ in range(3):
        begin = time.thread_time()
        call()
        took.append(time.thread_time() - begin)
    return min(took)


def decode(count: int) -> Row | str:
    """Measure what it takes to decode a node table as Ray gives it."""
    try:
        nodes = importlib.import_module("sliceform.controller.ray_backend.nodes")
    except ImportError as error:
        return f"decoding of nodes not measured: {error}"
    table = [recorded_node(number) for number in range(count)]
    before, took = nodes.decode_all(table, {}), []
    for _ in range(5):
        begin = time.thread_time()
        nodes.changes(before, nodes.decode_all(table, {}))
        took.append(time.thread_time() - begin)
    return Row(f"decode {count} nodes of Ray and compare", statistics.median(took) * 1e3, "ms")


def recorded_node(number: int) -> dict[str, Any]:
    """Return a row of `ray.nodes()` as a TPU host has it; one in ten is dead."""
    place, worker = divmod(number, 10)
    alive = number % 10 != 9
    return {
        "NodeID": f"{number:056x}",
        "Alive": alive,
        "NodeManagerAddress": f"10.0.{number >> 8 & 255}.{number & 255}",
        "NodeManagerHostname": f"host-{number}",
        "NodeManagerPort": 40000,
        "ObjectManagerPort": 40001,
        "ObjectStoreSocketName": "/tmp/ray/session_latest/sockets/plasma_store",  # noqa: S108 - as Ray records it
        "RayletSocketName": "/tmp/ray/session_latest/sockets/raylet",  # noqa: S108 - see above
        "MetricsExportPort": 50000,
        "NodeName": f"10.0.{number >> 8 & 255}.{number & 255}",
        "RuntimeEnvAgentPort": 50001,
        "DeathReason": 0 if alive else 2,
        "DeathReasonMessage": "" if alive else "health check failed due to missing too many heartbeats",
        "alive": alive,
        "Resources": {"CPU": 240.0, "TPU": 4.0, f"v4-{place}": 1.0, "memory": 4e11, "object_store_memory": 1e11},
        "Labels": {
            "ray.io/node-id": f"{number:056x}",
            "ray.io/tpu-slice-name": f"slice-{place}",
            "ray.io/tpu-worker-id": str(worker),
            "ray.io/tpu-pod-type": "v4-80",
            "ray.io/tpu-topology": "2x4x5",
            "ray.io/accelerator-type": "TPU-V4",
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a bound is broken")
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="fresh fleets for every tick in which all change")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    options = parser.parse_args()
    # What is lost on purpose is a warning each time: formatted as ever, but not shown between the results.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(Path(os.devnull).open("w")),  # noqa: SIM115 - until the end
        cache_logger_on_first_use=True,
    )
    print(f"{options.slices} slices of {SHAPE.hosts} hosts; log filtered at WARNING; the simulator's time taken off")
    world = World(options.slices)
    world.until_ready()
    rows: list[Row | str] = [*idle_and_one(world, 20), beat(world)]
    del world
    rows += all_at_once(options.slices, options.repeats)
    rows += memory(options.slices)
    rows += [*pending(200), queue(1_000, 0), queue(1_000, 1), attempts(20, 160), *past(200, 800)]
    rows.append(decode(options.slices * SHAPE.hosts))
    for row in rows:
        if isinstance(row, str):
            print(f"  {row}")
            continue
        bound = "" if row.bound is None else f"<= {row.bound:g}{'  BROKEN' if row.broken else ''}"
        print(f"  {row.what:<48} {row.value:>9.2f} {row.unit:<3} {bound:<16} {row.note}".rstrip())
    measured = [row for row in rows if isinstance(row, Row)]
    if options.json:
        options.json.write_text(json.dumps([row.__dict__ for row in measured], indent=1))
    return int(options.check and any(row.broken for row in measured))


if __name__ == "__main__":
    sys.exit(main())
