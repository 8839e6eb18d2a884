"""What the user's function can ask, and how hosts join into one jax world."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sliceform.controller.on_host import context
from sliceform.controller.on_host.attempt_folder import Channel

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def enter(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], context.HostContext]:
    """Be a host of a run of so many hosts."""

    def entered(world_size: int) -> context.HostContext:
        here = context.HostContext(
            rank=world_size - 1,
            world_size=world_size,
            slice_rank=0,
            num_slices=1,
            host_rank=world_size - 1,
            hosts_per_slice=world_size,
            slice_id="slice-1",
            run_id="run-1",
            attempt=1,
            previous=None,
            coordinator_address="10.0.0.1:4242",
            _signal=context.StopSignal(Channel("i1", "slice-1/0", "run-1/1")),
        )
        monkeypatch.setattr(context, "_current", None)
        context.enter(here)
        return here

    return entered


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `jax.distributed.initialize` was called with."""
    calls: list[dict[str, Any]] = []
    distributed = types.SimpleNamespace(
        is_initialized=lambda: bool(calls), initialize=lambda **options: calls.append(options)
    )
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(distributed=distributed))
    return calls


@pytest.mark.parametrize(
    ("told", "why"),
    [(None, "here is no run"), ("/nowhere/context", "is over"), (__file__, "SLICEFORM_CONTEXT=.* cannot be read")],
)
def test_outside_a_run_there_is_no_context(monkeypatch: pytest.MonkeyPatch, told: str | None, why: str) -> None:
    monkeypatch.setattr(context, "_current", None)
    monkeypatch.delenv("SLICEFORM_CONTEXT", raising=False)
    if told is not None:
        monkeypatch.setenv("SLICEFORM_CONTEXT", told)
    for asks in (context.host_context, context.initialize_jax):
        with pytest.raises(RuntimeError, match=f"inside a function .*{why}"):
            asks()


def test_the_deadline_is_that_of_the_stop(enter: Callable[[int], context.HostContext]) -> None:
    here = enter(2)
    Channel("i1", "slice-1/0", "run-1/1").ask_to_stop(123.0)
    assert context.host_context() is here
    assert here.should_stop()
    assert here.deadline == 123.0
    with pytest.raises(AttributeError):
        here.rank = 3  # type: ignore[misc]


def test_a_host_without_jax_is_told_what_to_do(
    enter: Callable[[int], context.HostContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(2)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ModuleNotFoundError) as error:
        context.initialize_jax()
    assert error.value.__notes__ == [
        "initialize_jax() needs jax on every host: install it there, or ship it with runtime_env"
    ]


def test_hosts_join_once_with_the_users_options(
    enter: Callable[[int], context.HostContext], joined: list[dict[str, Any]]
) -> None:
    enter(2)
    context.initialize_jax(initialization_timeout=9)
    context.initialize_jax(initialization_timeout=9)
    assert joined == [
        {
            "coordinator_address": "10.0.0.1:4242",
            "num_processes": 2,
            "process_id": 1,
            "local_device_ids": [],
            "cluster_detection_method": "deactivate",
            "initialization_timeout": 9,
        }
    ]


def test_the_user_may_restrict_the_devices(
    enter: Callable[[int], context.HostContext], joined: list[dict[str, Any]]
) -> None:
    enter(2)
    context.initialize_jax(local_device_ids=[0, 1])
    assert joined[0]["local_device_ids"] == [0, 1]


def test_a_host_that_is_alone_has_nobody_to_join(
    enter: Callable[[int], context.HostContext], joined: list[dict[str, Any]]
) -> None:
    enter(1)
    context.initialize_jax()
    assert joined == []
