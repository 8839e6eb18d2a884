"""`sliceform demo`: a virtual cluster, a fleet on it, a training that loses a host, and what comes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import string
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from sliceform.controller import SliceController, SliceformError, TpuSlice
from sliceform.controller.cli.demo import train
from sliceform.controller.cli.demo.data import load_digits
from sliceform.controller.cli.demo.show import Screen, complain, final_report, show_logs
from sliceform.controller.cli.demo.verdict import Evidence, gather, missing, summary
from sliceform.controller.cli.demo.watch import Stalled, Watch
from sliceform.controller.testing import VirtualCluster

#: Pod types by hosts per slice.
POD_TYPES = {1: "v4-8", 2: "v4-16", 4: "v4-32"}
#: Images of one step, over all hosts: shared evenly by 1, 2, 3, 4, 6, 8, 12 and 16 of them.
_BATCH = 240
_CHECKPOINTS = 10
#: Least time of a step, seconds; four processes on two cores take a little longer anyhow.
_PACE_S = 0.02
#: What every host is to have, whatever this process has been told: one CPU device, and collectives between processes.
_ENV = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    "XLA_FLAGS": "",
}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    slices: int = 2
    hosts: int = 2
    steps: int = 400
    fault: bool = True
    seed: int = 0
    #: Where the fleet's journal is kept; None = nowhere.
    journal: Path | None = None

    @property
    def pod_type(self) -> str:
        """The pod type that has so many hosts."""
        return POD_TYPES[self.hosts]

    @property
    def places(self) -> int:
        """How many slices the cluster has: one more than the fleet, if one will be lost."""
        return self.slices + self.fault

    @property
    def world(self) -> int:
        """How many hosts train."""
        return self.slices * self.hosts


def show(options: Options, *, as_json: bool = False) -> int:
    """Show all of it, leave nothing behind, and return the exit code: 0 only if all of it happened.

    With `as_json` standard output has one JSON document at the end, and all that is for people goes to standard error.
    """
    answer = sys.stdout
    screen = Screen(sys.stderr if as_json else sys.stdout)
    show_logs(screen)
    screen.text(_opening(options))
    # Ray tells its driver of every lost node on standard output, whatever it is asked: that is kept for a failure.
    with contextlib.redirect_stdout(io.StringIO()) as overheard:
        try:
            evidence, report = _show(options, screen)
        except SliceformError as error:
            complain([str(error)], overheard.getvalue())
            return 1
    screen.text(f"\n{report}\n")
    gaps = missing(evidence)
    if as_json:
        print(json.dumps(summary(evidence, gaps), indent=2), file=answer, flush=True)
    if gaps:
        complain(gaps, overheard.getvalue())
        return 1
    screen.text(_closing(options))
    if options.journal is not None:
        screen.text(f"\nIts journal is kept: ask `sliceform why {options.journal}` what happened.")
    return 0


def _show(options: Options, screen: Screen) -> tuple[Evidence, str]:
    """Do all of it; return what is known when everything is gone again, and the report on it."""
    with tempfile.TemporaryDirectory(prefix="sliceform-demo-") as directory:
        screen.line("cluster", f"starting Ray nodes: a head, and {options.places} x {options.pod_type}")
        with VirtualCluster() as cluster:
            for letter in string.ascii_lowercase[: options.places]:
                cluster.add_slice(options.pod_type, name=f"{options.pod_type}-{letter}", wait=False)
            plan = _plan(options, directory)
            load_digits(options.seed).save(plan.digits)
            cluster.wait_for_nodes()
            screen.line("cluster", f"up: {', '.join(place.name for place in cluster.slices)}")
            with _connected(cluster):
                evidence, report = _train(options, cluster, plan, screen)
    screen.line("cluster", "gone, with all of its processes and files")
    return evidence, report


def _train(options: Options, cluster: VirtualCluster, plan: train.Plan, screen: Screen) -> tuple[Evidence, str]:
    """Train on a fleet of the cluster; return what is known of it, and the report on it."""
    error, results = "", list[Mapping[str, Any]]()
    with SliceController(TpuSlice(options.pod_type), options.slices, journal=options.journal) as fleet:
        run = fleet.options(max_preemptions=int(options.fault), env=_ENV).submit(train.train, plan)
        watch = Watch(fleet, run, plan, screen)
        try:
            watch.until_over(cluster, options.seed if options.fault else None)
            results = run.result().values
            watch.until_idle()
        except (SliceformError, Stalled) as failure:
            error = str(failure)
            run.cancel(grace_s=0.0)
        status = fleet.status()
        evidence = gather(
            fault=options.fault,
            steps=options.steps,
            kill=watch.kill,
            history=fleet.history,
            slices=status.slices,
            attempts=run.attempts,
            reports=watch.reports,
            results=results,
            error=error,
            first_places=watch.first_places,
        )
    left = tuple(name for name in fleet.history.at(time.time()) if "/" not in name)
    screen.line(
        "fleet", f"closed{', but these are left: ' + ', '.join(left) if left else '; all slices are given back'}"
    )
    evidence = dataclasses.replace(evidence, left=left)
    stories = [(title, str(fleet.history.story(name))) for title, name in _tellable(evidence)]
    return evidence, final_report(evidence, str(status), stories)


def _plan(options: Options, directory: str) -> train.Plan:
    return train.Plan(
        steps=options.steps,
        seed=options.seed,
        batch=max(1, _BATCH // options.world) * options.world,
        checkpoint_every=options.steps // _CHECKPOINTS,
        directory=directory,
        pace_s=_PACE_S,
    )


@contextlib.contextmanager
def _connected(cluster: VirtualCluster) -> Iterator[None]:
    """Connect this process to the cluster, with Ray silent; what the hosts need of this package travels by value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
    ray.cloudpickle.register_pickle_by_value(train)
    try:
        yield
    finally:
        ray.cloudpickle.unregister_pickle_by_value(train)
        ray.shutdown()


def _tellable(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Name the slices whose stories are told at the end."""
    if evidence.kill is not None:
        yield f"the lost slice, {evidence.kill.slice_id}", evidence.kill.slice_id
    if evidence.replacement is not None:
        yield f"its replacement, {evidence.replacement}", evidence.replacement


def _opening(options: Options) -> str:
    plot = (
        "In its midst a host is killed: the fleet replaces the slice of that host, and the training goes on."
        if options.fault
        else "No host is killed."
    )
    hosts = "one host" if options.world == 1 else f"{options.world} hosts"
    return (
        f"A fleet of {options.slices} x {options.pod_type} trains a network on handwritten digits,"
        f" with {hosts} as one JAX world.\n"
        f"The hosts are Ray nodes on this machine, which look like TPU hosts. {plot}\n"
    )


def _closing(options: Options) -> str:
    if options.fault:
        return "All of it happened: trained, lost a slice, replaced it, went on from the checkpoint, and finished."
    return "All of it happened: trained and finished at the first attempt."
