"""What the demo runs on every host: data-parallel training of a small network that survives the loss of hosts.

One process per host, all of them one JAX world. Each takes its share of every batch; the mean of the gradients is an
all-reduce over all hosts. Rank 0 saves a checkpoint every so many steps, and each attempt begins with the last one.

This module travels by value: on a host it needs JAX and NumPy, of sliceform only what every host gets.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

#: A layer is its weights and its biases; a network is its layers.
Network = list[tuple[Any, Any]]
#: What a step changes and a checkpoint holds: the network and the velocity of its parameters.
State = tuple[Network, Network]

#: Units of the hidden layers.
HIDDEN = (128, 64)
CLASSES = 10
RATE = 0.05
MOMENTUM = 0.9
#: Pixels of the digits go from 0 to this.
BRIGHTEST = 16.0


@dataclass(frozen=True)
class Digits:
    """Images, one flat row each, and the digits that they show; the held-out ones are never trained on."""

    images: np.ndarray
    labels: np.ndarray
    held_out_images: np.ndarray
    held_out_labels: np.ndarray

    def save(self, path: Path) -> None:
        """Write them for hosts to read."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Digits:
        """Read what was written."""
        with np.load(path) as saved:
            return cls(**saved)


@dataclass(frozen=True)
class Plan:
    """What to train, and where to write; the same on all hosts."""

    steps: int
    seed: int
    #: Images of one step, over all hosts.
    batch: int
    checkpoint_every: int
    #: A directory that all hosts see.
    directory: str
    #: How often rank 0 reports, seconds.
    report_every_s: float = 0.25
    #: A step takes at least so long, seconds: on a machine that is quick enough, nobody could see what happens.
    pace_s: float = 0.0

    @property
    def digits(self) -> Path:
        """Where the data are."""
        return Path(self.directory, "digits.npz")

    @property
    def checkpoint(self) -> Path:
        """Where the last checkpoint is."""
        return Path(self.directory, "checkpoint.npz")

    @property
    def progress(self) -> Path:
        """Where rank 0 reports, one JSON object a line."""
        return Path(self.directory, "progress.jsonl")


def train(plan: Plan) -> dict[str, Any]:
    """Train on all hosts of the run; this is what is submitted to the fleet."""
    from sliceform.controller import host_context, initialize_jax

    context = host_context()
    initialize_jax()
    if jax.process_count() != context.world_size:
        message = f"JAX sees {jax.process_count()} processes, the run has {context.world_size} hosts"
        raise RuntimeError(message)
    return fit(plan, Digits.load(plan.digits), rank=context.rank, attempt=context.attempt)


def fit(plan: Plan, digits: Digits, *, rank: int = 0, attempt: int = 1) -> dict[str, Any]:
    """Train from the last checkpoint, if there is one, to the last step; all processes of the JAX world call it."""
    mesh = Mesh(np.array(jax.devices()), ("host",))
    split = NamedSharding(mesh, PartitionSpec("host"))
    whole = NamedSharding(mesh, PartitionSpec())
    world = jax.process_count()
    state = initial_state(digits.images.shape[1], plan.seed)
    first, state = load(plan.checkpoint, state)
    tell = Reporter(plan, attempt, digits) if rank == 0 else None
    if tell:
        tell.begin(first, world)
    state = jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(whole, leaf), state)
    update = jax.jit(advance, out_shardings=(whole, whole), donate_argnums=0)
    loss = None
    for step in range(first, plan.steps):
        over_at = time.monotonic() + plan.pace_s
        mine = batch_of(step, plan, len(digits.labels)).reshape(world, -1)[rank]
        images = jax.make_array_from_process_local_data(split, scaled(digits.images[mine]))
        labels = jax.make_array_from_process_local_data(split, digits.labels[mine].astype(np.int32))
        state, loss = update(state, images, labels)
        loss.block_until_ready()
        time.sleep(max(0.0, over_at - time.monotonic()))
        if tell:
            tell.step(step + 1, loss, functools.partial(local, state))
        if tell and (step + 1) % plan.checkpoint_every == 0:
            save(plan.checkpoint, step + 1, local(state))
            tell.saved(step + 1)
    network, _ = ended = local(state)
    return {
        "rank": rank,
        "steps": plan.steps,
        "first": first,
        "accuracy": accuracy(network, digits),
        "fingerprint": fingerprint(ended),
    }


# The network.


def initial_state(inputs: int, seed: int) -> State:
    """Return a random network at rest; the same on every host."""
    rng = np.random.default_rng(seed)
    sizes = (inputs, *HIDDEN, CLASSES)
    network = [
        (rng.normal(0, (2 / above) ** 0.5, (above, below)).astype(np.float32), np.zeros(below, np.float32))
        for above, below in itertools.pairwise(sizes)
    ]
    return network, jax.tree.map(np.zeros_like, network)


def scores(network: Network, images: Any) -> Any:
    """Return how much each image looks like each digit."""
    *hidden, (weights, biases) = network
    for inner_weights, inner_biases in hidden:
        images = jax.nn.relu(images @ inner_weights + inner_biases)
    return images @ weights + biases


def mean_loss(network: Network, images: Any, labels: Any) -> Any:
    """Return the mean cross-entropy of a batch."""
    chances = jax.nn.log_softmax(scores(network, images))
    return -jnp.mean(jnp.take_along_axis(chances, labels[:, None], axis=1))


def advance(state: State, images: Any, labels: Any) -> tuple[State, Any]:
    """Do one step of gradient descent with momentum. With a split batch, JAX makes the mean an all-reduce."""
    network, velocity = state
    loss, gradient = jax.value_and_grad(mean_loss)(network, images, labels)
    velocity = jax.tree.map(lambda old, new: MOMENTUM * old + new, velocity, gradient)
    network = jax.tree.map(lambda value, change: value - RATE * change, network, velocity)
    return (network, velocity), loss


def accuracy(network: Network, digits: Digits) -> float:
    """Return which part of the held-out images is recognised."""
    guesses = np.argmax(np.asarray(scores(network, scaled(digits.held_out_images))), axis=1)
    return float(np.mean(guesses == digits.held_out_labels))


# The data.


def scaled(images: np.ndarray) -> np.ndarray:
    """Return images with pixels from 0 to 1."""
    return images.astype(np.float32) / np.float32(BRIGHTEST)


def batch_of(step: int, plan: Plan, images: int) -> np.ndarray:
    """Return which images one step takes: the same on every host and in every attempt, shuffled anew in each pass."""
    passes, place = divmod(step, images // plan.batch)
    order = np.random.default_rng([plan.seed, passes]).permutation(images)
    return order[place * plan.batch : (place + 1) * plan.batch]


# What outlives a process.


def local(state: State) -> State:
    """Return this process's copy of what all processes have."""
    copied: State = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), state)
    return copied


def save(path: Path, step: int, state: State) -> None:
    """Write a checkpoint: complete or, if the process dies meanwhile, not at all."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    with unfinished.open("wb") as file:
        np.savez(file, *jax.tree.leaves(state), step=step)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(path: Path, state: State) -> tuple[int, State]:
    """Return the step and the state of the last checkpoint; without one, 0 and the given state."""
    if not path.exists():
        return 0, state
    with np.load(path) as saved:
        leaves = [saved[f"arr_{number}"] for number in range(len(jax.tree.leaves(state)))]
        return int(saved["step"]), jax.tree.unflatten(jax.tree.structure(state), leaves)


def fingerprint(state: State) -> str:
    """Return a short text that differs for states that differ in any bit."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


class Reporter:
    """Rank 0's reports: the first step of an attempt, then one every so often, and the last."""

    def __init__(self, plan: Plan, attempt: int, digits: Digits) -> None:
        """Report on one attempt."""
        self._plan = plan
        self._attempt = attempt
        self._digits = digits
        self._due = 0.0

    def begin(self, first: int, world: int) -> None:
        """Say where the attempt begins, and how many processes take part."""
        self._write(kind="begin", step=first, world=world)

    def step(self, step: int, loss: Any, state: Callable[[], State]) -> None:
        """Say how it goes, if it is time to."""
        if time.monotonic() < self._due and step < self._plan.steps:
            return
        network, _ = state()
        self._write(kind="step", step=step, loss=float(loss), accuracy=accuracy(network, self._digits))
        self._due = time.monotonic() + self._plan.report_every_s

    def saved(self, step: int) -> None:
        """Say that there is a checkpoint."""
        self._write(kind="saved", step=step)

    def _write(self, **report: Any) -> None:
        line = json.dumps({"attempt": self._attempt, "at": time.time(), **report})
        with self._plan.progress.open("a") as file:
            file.write(line + "\n")
