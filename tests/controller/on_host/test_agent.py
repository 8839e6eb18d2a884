"""What the agent does with an attempt's processes: it finds and ends all of them, and nothing else."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sliceform.controller.on_host import cleanup
from sliceform.controller.on_host import proc as processes
from sliceform.controller.on_host.agent import Agent
from sliceform.controller.on_host.attempt_folder import Channel, lock
from sliceform.controller.on_host.context import StopSignal

# Marks of processes are looked for on the whole machine: tests that use the same ones must not run at once.
pytestmark = [pytest.mark.timeout(30), pytest.mark.xdist_group("marks")]

ATTEMPT = "run-1/2"

#: A host process without Ray: it registers as `process.run` does, and then runs the code.
HOST = """
import os, signal, subprocess, sys, time
from sliceform.controller.on_host.attempt_folder import Channel
from sliceform.controller.on_host.proc import MARK

channel = Channel("i1", "slice-1/0", sys.argv[1])
os.setsid()
held = channel.enter()
if held is None:
    sys.exit(3)
os.environ[MARK] = channel.mark
note = open(sys.argv[2], "a", buffering=1)

def tell(pid):
    note.write(f"{pid}\\n")

tell(os.getpid())
"""

FROZEN = """
tell("done")
os.kill(os.getpid(), signal.SIGSTOP)
"""

STUBBORN = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
tell(subprocess.Popen(["sleep", "600"]).pid)
tell(subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
tell(subprocess.Popen(["sleep", "600"], start_new_session=True, env={}).pid)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        # Nobody's child, in nobody's session, with no mark: it still holds the run file.
        tell(os.getpid())
        tell("done")
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""

ORPHANS = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        tell(os.getpid())
        tell("done")
        time.sleep(600)
    os._exit(0)
os.wait()
os._exit(1)
"""

FORKING = """
for number in range(150):
    if os.fork() == 0:
        # Every child has one of its own and leaves the session.
        os.setsid()
        if os.fork():
            time.sleep(600)
        time.sleep(600)
    if number == 10:
        tell("done")
    time.sleep(0.01)
time.sleep(600)
"""

POLITE = """
tell("done")
while not channel.asked_to_stop()[0]:
    time.sleep(0.01)
"""

Start = Callable[..., list[int]]


@pytest.fixture
def agent(own_tmp: Path) -> Agent:
    return Agent("slice-1", 0, "i1")


@pytest.fixture
def channel(own_tmp: Path) -> Channel:
    return Channel("i1", "slice-1/0", ATTEMPT)


@pytest.fixture
def start(own_tmp: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a host process that runs the code; return the process ids that it told of once it has told `done`."""
    started: list[subprocess.Popen[bytes]] = []
    told: list[int] = []

    def begin(code: str, attempt: str = ATTEMPT) -> list[int]:
        note = tmp_path / f"note-{len(started)}"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        started.append(subprocess.Popen([sys.executable, "-c", HOST + code, attempt, str(note)], env=env))
        end = time.monotonic() + 60
        while not note.exists() or "done" not in note.read_text():
            assert time.monotonic() < end
            time.sleep(0.01)
        pids = [int(word) for word in note.read_text().split() if word != "done"]
        told.extend(pids)
        return pids

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)
    for pid in told:
        if _alive(pid):
            os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    row = processes.stat(pid)
    return row is not None and row.state not in "ZX"


@pytest.mark.parametrize("code", [FROZEN, STUBBORN, ORPHANS, FORKING], ids=["frozen", "stubborn", "orphans", "forking"])
def test_stop_leaves_nothing(agent: Agent, channel: Channel, start: Start, code: str) -> None:
    """Neither a frozen process, nor one that ignores signals, nor children that left it in any way."""
    pids = start(code)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        assert asyncio.run(agent.stop(ATTEMPT, 0.1))["killed"] >= 1
        assert not [pid for pid in pids if _alive(pid)]
        assert not channel.held()
        assert bystander.poll() is None
        assert asyncio.run(agent.stop(ATTEMPT, 5.0))["killed"] == 0
    finally:
        bystander.kill()
        bystander.wait()


def test_stop_asks_first_and_kills_nobody_who_listens(agent: Agent, start: Start) -> None:
    start(POLITE)
    began = time.monotonic()
    assert asyncio.run(agent.stop(ATTEMPT, 60.0)) == {"killed": 0, "unasked": False, "cut": ""}
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("code", "told"),
    [(POLITE, False), (POLITE, True), (ORPHANS, False)],
    ids=["before", "after", "before, and a child holds its lock"],
)
def test_stop_says_whether_the_process_was_dead_before_it_was_first_asked(
    agent: Agent,
    start: Start,
    code: str,
    told: bool,  # noqa: FBT001
) -> None:
    """Of two hosts the one whose process died may be heard last: then its host knows better."""
    pid = start(code)[0]
    if told:
        agent.notify(ATTEMPT, None)
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < end
        time.sleep(0.002)
    assert asyncio.run(agent.stop(ATTEMPT, 0.0))["unasked"] is not told
    assert asyncio.run(agent.stop(ATTEMPT, 0.0))["unasked"] is not told


def test_a_process_that_has_raised_may_say_what_though_it_is_to_be_stopped_at_once(
    agent: Agent, channel: Channel, start: Start
) -> None:
    start(POLITE)
    channel.answering()
    assert asyncio.run(agent.stop(ATTEMPT, 0.0))["killed"] == 1  # it did not leave within that time


def test_what_starts_after_stop_runs_nothing(agent: Agent, own_tmp: Path, channel: Channel) -> None:
    asyncio.run(agent.stop(ATTEMPT, 10.0))
    assert channel.enter() is None
    assert not channel.held()


def test_who_cannot_be_killed_is_said(channel: Channel, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    (pid,) = start(FROZEN)
    monkeypatch.setattr(processes, "send", lambda *_: None)
    with pytest.raises(TimeoutError, match=rf"\b{pid} \(state T\)"):
        asyncio.run(cleanup.kill(channel, within_s=0.05))


def test_a_process_id_that_was_given_away_is_not_hit(channel: Channel) -> None:
    """A run file that names a living process, which is another one: it was born at another time."""
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        handle = lock(channel.run_file)
        channel.run_file.write_text(f"{other.pid} 1")
        assert cleanup.left(channel) == {}
        os.close(handle)
        processes.send(other.pid, 1, signal.SIGKILL)
        time.sleep(0.05)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_wait_started_gives_the_process_or_says_that_there_will_be_none(agent: Agent, start: Start) -> None:
    async def late() -> int:
        waiting = asyncio.create_task(agent.wait_started(ATTEMPT))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        (pid,) = await asyncio.to_thread(start, POLITE)
        assert await waiting == pid
        await agent.stop(ATTEMPT, 5)

        never = asyncio.create_task(agent.wait_started("run-1/3"))
        await asyncio.sleep(0.05)
        await agent.stop("run-1/3", 0)
        with pytest.raises(RuntimeError, match="stopped before"):
            await asyncio.wait_for(never, 5)
        return pid

    assert asyncio.run(late()) > 0


def test_prepare_ends_earlier_attempts_and_keeps_their_tombstones(agent: Agent, start: Start) -> None:
    (pid,) = start(FROZEN, "run-1/1")
    answer = asyncio.run(agent.prepare(ATTEMPT, want_ports=True))
    assert not _alive(pid)
    assert len(set(answer["meet"])) == 2
    assert all(where.startswith(f"{answer['address']}:") for where in answer["meet"])
    assert answer["address"]
    assert Channel("i1", "slice-1/0", "run-1/1").enter() is None
    assert asyncio.run(agent.prepare(ATTEMPT, want_ports=False))["meet"] == []


def test_prepare_clears_what_agents_that_are_gone_left_and_nothing_of_the_living(own_tmp: Path, start: Start) -> None:
    (pid,) = start(FROZEN, "run-1/1")
    theirs = own_tmp / "i1" / "slice-1-0"
    living = lock(theirs / "agent")
    other = Agent("slice-2", 0, "i2")
    asyncio.run(other.prepare("run-7/1", want_ports=False))
    assert _alive(pid)
    os.close(living)
    asyncio.run(other.prepare("run-7/1", want_ports=False))
    assert not _alive(pid)
    assert not theirs.parent.exists()
    assert (own_tmp / "i2" / "slice-2-0" / "agent").exists()


def test_folders_without_an_agent_go_after_a_day(own_tmp: Path) -> None:
    old, new = own_tmp / "i1" / "slice-1-0", own_tmp / "i1" / "slice-2-0"
    for folder in (old, new):
        (folder / "run-1-1").mkdir(parents=True)
    os.utime(old, (time.time() - 90_000,) * 2)
    asyncio.run(Agent("slice-3", 0, "i3").prepare(ATTEMPT, want_ports=False))
    assert not old.exists()
    assert new.exists()


def test_a_folder_of_somebody_elses_is_not_used(own_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_tmp.mkdir()
    user = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: user)
    own_tmp.rename(own_tmp.with_name(f"sliceform-{user}"))
    with pytest.raises(PermissionError, match="belongs to another user"):
        Channel("i1", "slice-1/0", ATTEMPT)


def test_notify_reaches_a_process_that_starts_later_and_the_earliest_deadline_holds(
    agent: Agent, channel: Channel
) -> None:
    signal_ = StopSignal(channel)
    assert signal_.read() == (False, None)
    agent.notify(ATTEMPT, None)
    time.sleep(0.06)
    assert signal_.read() == (True, None)
    for deadline in (200.0, 100.0, 300.0):
        agent.notify(ATTEMPT, deadline)
    time.sleep(0.06)
    assert signal_.read() == (True, 100.0)
    assert json.loads((channel.folder / "stop").read_text()) == {"deadline_epoch_s": 100.0}


def test_should_stop_reads_its_file_seldom_and_outlives_a_bad_one(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reads: list[int] = []
    read = channel.asked_to_stop

    def counted() -> tuple[bool, float | None]:
        reads.append(1)
        return read()

    monkeypatch.setattr(channel, "asked_to_stop", counted)
    channel.ask_to_stop(None)
    reads.clear()
    signal_ = StopSignal(channel)
    for _ in range(1000):
        assert signal_.read()[0]
    assert 1 <= len(reads) <= 3
    (channel.folder / "stop").write_text("{")
    time.sleep(0.06)
    assert signal_.read() == (True, None)
    assert "cannot see" in caplog.text


def test_beat_tells_a_raylet_that_is_stopped_or_gone(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    raylet = subprocess.Popen(["sleep", "60"])
    try:
        agent._raylet = raylet.pid
        assert asyncio.run(agent.beat(0.0))
        raylet.send_signal(signal.SIGSTOP)
        while processes.stat(raylet.pid).state != "T":
            time.sleep(0.005)
        assert not asyncio.run(agent.beat(0.0))
    finally:
        raylet.kill()
        raylet.wait()
    assert not asyncio.run(agent.beat(0.0))
    agent._raylet = None
    assert asyncio.run(agent.beat(0.0))
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not asyncio.run(agent.beat(0.0))


def test_without_proc_the_beat_is_good_and_stop_kills_the_group(
    agent: Agent, channel: Channel, start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (pid,) = start(FROZEN)
    channel.run_file.write_text(f"{pid} ")
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_PROC", tmp_path / "none")
        assert processes.healthy(1)
        asyncio.run(agent.stop(ATTEMPT, 0.0))
    assert not _alive(pid)
