"""The process that runs the user's function: its environment, and every way that it can end."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sliceform.controller.model.settings import Settings
from sliceform.controller.on_host.envelope import failure
from sliceform.controller.on_host.environment import OURS, set_environment

# Marks of processes are looked for on the whole machine: tests that use the same ones must not run at once.
pytestmark = [pytest.mark.timeout(40), pytest.mark.xdist_group("marks")]

RUN = """
import os
bootstrap.install(sources)
from ray import cloudpickle
from sliceform.controller.on_host import user_process as process


def run(function, *args, **kwargs):
    envelope, value = process.run(given["call"], cloudpickle.dumps((function, args, kwargs)))
    envelope.pop("pid")
    if envelope.get("error"):
        error = cloudpickle.loads(envelope["error"])
        envelope["error"] = [type(error).__name__, *map(str, error.args)]
    return [envelope, cloudpickle.loads(value) if value else None]
"""


@pytest.fixture
def run(script: Callable[..., Any], call: dict[str, Any]) -> Callable[..., Any]:
    def ran(code: str, changes: dict[str, Any] | None = None) -> Any:
        return script(f"{RUN}\n{code}", call={**call, **(changes or {})})

    return ran


def test_the_function_sees_who_it_is(run: Callable[..., Any]) -> None:
    envelope, value = run("""
def work(a, b=0):
    from sliceform.controller import host_context
    import os
    c = host_context()
    return [a + b, c.rank, c.world_size, c.slice_id, c.attempt, c.run_id, c.previous, c.should_stop(), c.deadline,
            c.coordinator_address, os.getsid(0) == os.getpid(), os.environ["SLICEFORM_ATTEMPT_MARK"]]
answer = run(work, 1, b=2)
""")
    assert envelope == {"status": "returned"}
    assert value == [
        3,
        1,
        2,
        "slice-1",
        2,
        "run-1",
        "preempted",
        False,
        None,
        "10.0.0.1:4242",
        True,
        "i1/slice-1-1/run-1-2",
    ]


def test_what_the_function_starts_has_its_context(script: Callable[..., Any], call: dict[str, Any]) -> None:
    """Forked, spawned or a program of its own; each sees for itself when the work is to stop."""
    code = """
asks = (
    "(lambda c: [c.rank, c.world_size, c.slice_id, c.attempt, c.previous, c.should_stop(), c.deadline])"
    "(__import__('sliceform.controller', fromlist=['host_context']).host_context())"
)

def work():
    import json, multiprocessing, subprocess
    from sliceform.controller.on_host.attempt_folder import Channel

    Channel("i1", "slice-1/1", "run-1/2").ask_to_stop(5.0)
    told = subprocess.run([sys.executable, "-c", f"import json; print(json.dumps({asks}))"], stdout=subprocess.PIPE)
    told = [json.loads(told.stdout or "null")]
    for how in ("fork", "spawn"):
        with multiprocessing.get_context(how).Pool(1) as pool:
            told.append(pool.apply(eval, (asks,)))
    return told

answer = run(work)
"""
    envelope, told = script(f"{RUN}\n{code}", hidden=False, call=call)
    assert envelope == {"status": "returned"}
    assert told == [[1, 2, "slice-1", 2, "preempted", True, 5.0]] * 3


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stands for the environment of a process."""
    found = {"MEGASCALE_NUM_SLICES": "8", "SLICEFORM_MEGASCALE_SLICE_ID": "3", "PATH": "/bin"}
    monkeypatch.setattr(os, "environ", found)
    return found


def test_one_slice_has_no_megascale_even_where_the_node_or_the_user_sets_it(
    environ: dict[str, str], call: dict[str, Any]
) -> None:
    set_environment({**call, "env": {"MEGASCALE_PORT": "1"}})
    assert not [name for name in environ if "MEGASCALE" in name]
    assert environ["PATH"] == "/bin"


def test_ours_wins_over_the_users_and_several_slices_have_megascale(
    environ: dict[str, str], call: dict[str, Any]
) -> None:
    call |= {"num_slices": 2, "slice_rank": 1, "rank": 3, "world_size": 4}
    call["env"] = {"MINE": "yes", "TPU_HOST_ID": "9", "MEGASCALE_PORT": "1"}
    before = {*environ}
    set_environment(call)
    wanted = {
        "TPU_HOST_ID": "1",
        "TPU_SLICE_NAME": "pod-a",
        "TPU_NUM_DEVICES": "4",
        "JAX_COORDINATOR_ADDRESS": "10.0.0.1:4242",
        "JAX_NUM_PROCESSES": "4",
        "JAX_PROCESS_ID": "3",
        "MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_PORT": "4243",
        "MEGASCALE_SLICE_ID": "1",
    }
    assert {name: environ[name] for name in wanted} == wanted
    assert {name: environ[f"SLICEFORM_{name}"] for name in wanted} == wanted
    assert environ["MINE"] == "yes"
    assert environ["SLICEFORM_ATTEMPT"] == "2"
    assert environ.keys() - before <= OURS | {"MINE"}


def test_an_environment_that_cannot_be_set_is_refused(run: Callable[..., Any]) -> None:
    envelope, _ = run("answer = run(print)", changes={"env": {"NUMBER": 3}})
    assert envelope["status"] == "refused"
    assert "environment" in envelope["message"]


def test_a_traceback_begins_with_the_users_frames(run: Callable[..., Any]) -> None:
    envelope, value = run("""
def work():
    raise ValueError("no such rate")
answer = run(work)
""")
    assert value is None
    assert envelope["status"] == "raised"
    assert envelope["types"][:2] == ["builtins.ValueError", "builtins.Exception"]
    assert envelope["message"] == "ValueError: no such rate"
    assert envelope["error"] == ["ValueError", "no such rate"]
    assert envelope["traceback"].splitlines()[1].endswith("in work")
    assert "process.py" not in envelope["traceback"]


@pytest.mark.parametrize(("code", "number"), [(None, 0), (3, 3), ("gave up", 1)])
def test_sys_exit_is_an_outcome(code: Any, number: int) -> None:
    envelope = failure("raised", SystemExit(code))
    assert (envelope["types"][0], envelope["exit_code"]) == ("builtins.SystemExit", number)
    assert failure("raised", KeyboardInterrupt())["exit_code"] is None


@pytest.mark.parametrize("how", ["sys.exit()", "sys.exit(0)"])
def test_to_exit_as_programs_do_that_are_done_is_to_return_none(run: Callable[..., Any], how: str) -> None:
    envelope, value = run(f"""
def work():
    import sys
    {how}
answer = run(work)
""")
    assert (envelope["status"], value) == ("returned", None)


def test_a_value_that_cannot_be_pickled_is_said_so(run: Callable[..., Any]) -> None:
    envelope, _ = run("""
def work():
    import threading
    return threading.Lock()
answer = run(work)
""")
    assert envelope["status"] == "raised"
    assert "the returned lock cannot be pickled" in envelope["message"]


def test_an_exception_that_cannot_travel_leaves_its_traceback() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

        def __str__(self) -> str:
            raise RuntimeError

    envelope = failure("raised", caught(lambda: (_ for _ in ()).throw(Odd(1, 2))))
    assert envelope["error"] is None
    assert "message cannot be had" in envelope["message"]
    assert "in caught" in envelope["traceback"]


def test_nothing_that_comes_back_is_without_bound() -> None:
    envelope = failure("raised", ValueError("x" * 5_000_000), "what")
    assert len(envelope["message"]) < 10_000
    assert len(envelope["traceback"]) < 70_000
    assert envelope["error"] is None


def caught(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - any
        return error
    raise AssertionError("nothing was raised")


def test_work_that_cannot_be_unpickled_is_refused_and_says_what_is_missing(run: Callable[..., Any]) -> None:
    envelope, _ = run("""
import pickle
class Far:
    def __reduce__(self):
        return __import__, ("my_models",)
envelope, value = process.run(given["call"], pickle.dumps((Far(), (), {})))
envelope.pop("error")
answer = [envelope, None]
""")
    assert envelope["status"] == "refused"
    assert "No module named 'my_models'" in envelope["message"]
    assert "runtime_env" in envelope["message"]


def test_a_process_that_comes_too_late_runs_nothing(run: Callable[..., Any], tmp_path: Any) -> None:
    path = str(tmp_path / "ran")
    envelope, _ = run(f"""
from sliceform.controller.on_host.attempt_folder import Channel
Channel("i1", "slice-1/1", "run-1/2").bury()
answer = run(open, {path!r}, "w")
""")
    assert envelope == {"status": "stopped"}
    assert not (tmp_path / "ran").exists()


def test_a_second_process_of_an_attempt_runs_nothing(run: Callable[..., Any]) -> None:
    answer = run("""
from sliceform.controller.on_host.attempt_folder import Channel
held = Channel("i1", "slice-1/1", "run-1/2").enter()
try:
    run(print)
except RuntimeError as error:
    answer = str(error)
""")
    assert "already" in answer


#: Works for some seconds in a JAX world, and ends as it is told to.
JAX_WORK = """
from sliceform.controller.on_host.attempt_folder import Channel

def work(seconds, stopped):
    import time
    from sliceform.controller import Stopped, initialize_jax
    initialize_jax()
    time.sleep(seconds)
    if stopped:
        raise Stopped("saved")
    from jax._src.xla_bridge import CUDA_VISIBLE_DEVICES
    return CUDA_VISIBLE_DEVICES.value

call = given["call"]
if {stopped}:
    Channel("i1", f"slice-1/{{call['rank']}}", call["attempt"]).ask_to_stop(None)
envelope, devices = run(work, {seconds}.get(call["rank"]), {stopped})
answer = [envelope["status"], devices, sys.modules["jax"].distributed.is_initialized()]
"""

#: A host whose Ray was started by Slurm, one task a node, or by Open MPI, of which too little is left.
OTHER_CLUSTERS = {
    "SLURM_JOB_ID": "50448588",
    "SLURM_STEP_NODELIST": "gpu[01-02]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "JAX_LOCAL_DEVICE_IDS": "0",
}


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("stopped", "status", "devices"), [(False, "returned", "all"), (True, "raised", None)])
def test_whoever_is_done_first_waits_for_the_others_in_the_jax_world(
    run: Callable[..., Any], *, stopped: bool, status: str, devices: str | None
) -> None:
    """JAX ends all others when the process with its coordinator leaves before them, whatever they still save.

    And all devices of a host are in it, whatever other cluster the host is part of.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    code = JAX_WORK.format(stopped=stopped, seconds={0: 0.0, 1: 7.0})
    limit_s = Settings().jax_shutdown_s

    def host(rank: int) -> Any:
        changes = {"rank": rank, "host_rank": rank, "coordinator_address": address, "jax_shutdown_s": limit_s}
        return run(code, changes | {"env": OTHER_CLUSTERS})

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(host, range(2))) == [[status, devices, False]] * 2


def test_leaving_jax_is_bounded(run: Callable[..., Any]) -> None:
    """Only after success, and no longer than the limit."""
    answer = run(
        """
import time, types
calls = []
def shutdown():
    calls.append("shutdown")
    time.sleep(60)
sys.modules["jax"] = types.SimpleNamespace(
    distributed=types.SimpleNamespace(is_initialized=lambda: True, shutdown=shutdown))
def work():
    return 7
start = time.monotonic()
answer = [run(work), calls, time.monotonic() - start]
sys.stdout.flush()
""",
        {"jax_shutdown_s": 0.2},
    )
    (envelope, value), calls, took_s = answer
    assert (envelope["status"], value, calls) == ("returned", 7, ["shutdown"])
    assert 0.2 <= took_s < 20
