"""The training of the demo, in one process: it learns, and it goes on from a checkpoint as if nothing had happened."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ray import cloudpickle

from sliceform.controller.cli.demo import data, train


@pytest.fixture(scope="module")
def digits() -> train.Digits:
    return data.load_digits(seed=3)


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    def make(steps: int, seed: int = 3) -> train.Plan:
        return train.Plan(steps, seed, batch=60, checkpoint_every=10, directory=str(tmp_path), report_every_s=0.0)

    return make


def test_a_step_makes_the_loss_of_its_batch_smaller(digits: train.Digits) -> None:
    images, labels = train.scaled(digits.images[:60]), digits.labels[:60].astype(np.int32)
    state = train.initial_state(images.shape[1], seed=1)
    losses = []
    for _ in range(5):
        state, loss = jax.jit(train.advance)(state, images, labels)
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_it_learns_to_read_digits_it_has_not_seen(plan: Any, digits: train.Digits) -> None:
    result = train.fit(plan(100), digits)
    assert result["steps"] == 100
    assert result["first"] == 0
    assert result["accuracy"] > 0.9


def test_resuming_gives_the_same_network_to_the_bit(plan: Any, digits: train.Digits, tmp_path: Path) -> None:
    train.fit(plan(25), digits)
    assert train.load(plan(25).checkpoint, train.initial_state(64, 3))[0] == 20
    resumed = train.fit(plan(40), digits, attempt=2)
    assert resumed["first"] == 20
    (tmp_path / "checkpoint.npz").unlink()
    straight = train.fit(plan(40), digits)
    assert straight["first"] == 0
    assert resumed["fingerprint"] == straight["fingerprint"]


def test_another_seed_gives_another_network(plan: Any, digits: train.Digits, tmp_path: Path) -> None:
    one = train.fit(plan(10), digits)
    (tmp_path / "checkpoint.npz").unlink()
    assert train.fit(plan(10, seed=4), digits)["fingerprint"] != one["fingerprint"]


def test_a_checkpoint_that_was_being_written_does_not_count(plan: Any) -> None:
    state = train.initial_state(64, 3)
    path = plan(10).checkpoint
    assert train.load(path, state) == (0, state)
    train.save(path, 7, state)
    path.with_suffix(".4711").write_bytes(b"half of one")
    step, loaded = train.load(path, train.initial_state(64, 99))
    assert step == 7
    assert train.fingerprint(loaded) == train.fingerprint(state)


def test_a_pass_takes_every_image_at_most_once_and_every_pass_another_order(plan: Any) -> None:
    first = np.concatenate([train.batch_of(step, plan(10), 130) for step in (0, 1)])
    second = np.concatenate([train.batch_of(step, plan(10), 130) for step in (2, 3)])
    assert len(set(first)) == 120
    assert len(set(second)) == 120
    assert list(first) != list(second)
    assert list(train.batch_of(1, plan(10), 130)) == list(first[60:])


def test_the_data_are_split_the_same_way_for_the_same_seed() -> None:
    images, labels = np.arange(100 * 64, dtype=np.uint8).reshape(100, 64), np.arange(100, dtype=np.uint8)
    one, same, other = (data.split(images, labels, seed) for seed in (1, 1, 2))
    assert len(one.held_out_labels) == 20
    assert sorted([*one.labels, *one.held_out_labels]) == list(range(100))
    assert list(one.labels) == list(same.labels)
    assert list(one.held_out_labels) != list(other.held_out_labels)
    assert all((images[label] == image).all() for image, label in zip(one.images, one.labels, strict=True))


def test_the_data_reach_the_hosts_unchanged(plan: Any, digits: train.Digits) -> None:
    digits.save(plan(10).digits)
    loaded = train.Digits.load(plan(10).digits)
    assert all((value == getattr(loaded, name)).all() for name, value in vars(digits).items())


_ELSEWHERE = """
import pickle, sys
sys.modules["sliceform"] = None
function, arguments = pickle.load(sys.stdin.buffer)
print(function(*arguments)["accuracy"])
"""


def test_it_travels_to_a_process_without_sliceform(plan: Any, digits: train.Digits) -> None:
    cloudpickle.register_pickle_by_value(train)
    try:
        work = cloudpickle.dumps((train.fit, (plan(20), digits)))
    finally:
        cloudpickle.unregister_pickle_by_value(train)
    assert pickle.loads(work)[0] is not train.fit
    here = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        input=work,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert 0.1 < float(here.stdout) < 1.0
