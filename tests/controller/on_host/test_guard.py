"""When an agent ends the work of its host by itself, and how it is asked to from outside."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sliceform.controller.on_host import proc as processes
from sliceform.controller.on_host.attempt_folder import Channel, root
from sliceform.controller.on_host.guard import Guard

FENCE_S = 20.0


@pytest.fixture
def gcs() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def guard(own_tmp: Path, gcs: socket.socket) -> Guard:
    assert own_tmp == root()
    return Guard(own_tmp / "i1" / "slice-1-0", FENCE_S, lambda: False, gcs.getsockname())


class TestWorkMustEnd:
    def test_not_while_the_driver_calls(self, guard: Guard, gcs: socket.socket) -> None:
        gcs.close()
        guard.heard()
        assert guard._over(time.monotonic(), 0.05) == ""

    def test_not_while_the_gcs_answers_though_the_driver_does_not_call(self, guard: Guard) -> None:
        guard._sign -= FENCE_S
        assert guard._over(time.monotonic() + 2.0, 0.05) == ""

    def test_when_neither_was_heard_for_half_of_the_fence(self, guard: Guard, gcs: socket.socket) -> None:
        gcs.close()
        guard._sign -= FENCE_S / 2 - 1.0
        assert guard._over(time.monotonic() + 2.0, 0.05) == ""
        guard._sign -= 1.0
        assert "neither the driver nor the GCS" in guard._over(time.monotonic() + 4.0, 0.05)

    def test_when_the_host_stood_still_though_everybody_answers_now(self, guard: Guard) -> None:
        guard.heard()
        assert guard._over(time.monotonic(), FENCE_S / 2 - 0.1) == ""
        assert "stood still" in guard._over(time.monotonic(), FENCE_S / 2 + 0.1)

    def test_when_the_raylet_is_gone(self, own_tmp: Path) -> None:
        guard = Guard(own_tmp / "i1" / "slice-1-0", FENCE_S, lambda: True, None)
        assert "raylet" in guard._over(time.monotonic(), 0.05)


@pytest.fixture
def daemon(own_tmp: Path) -> Iterator[tuple[Channel, subprocess.Popen[bytes]]]:
    """A process of an attempt that has left its session."""
    channel = Channel("i1", "slice-1/0", "run-1/1")
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={processes.MARK: channel.mark},
        start_new_session=True,
    )
    end = time.monotonic() + 10.0
    while channel.mark.encode() not in processes.environ(child.pid):  # the kernel shows it a moment after the start
        assert time.monotonic() < end
    yield channel, child
    child.kill()
    child.wait()


def test_all_work_ends_daemons_included(guard: Guard, daemon: tuple[Channel, subprocess.Popen[bytes]]) -> None:
    channel, child = daemon
    channel.folder.mkdir(parents=True)
    guard._end_all("it stood still")
    assert child.wait(30) == -9
    assert channel.buried()


def test_a_process_that_is_cut_off_is_told_from_one_that_died_before(
    guard: Guard, daemon: tuple[Channel, subprocess.Popen[bytes]]
) -> None:
    channel, child = daemon
    channel.folder.mkdir(parents=True)
    born = processes.stat(child.pid)
    assert born is not None
    leader = f"{child.pid} {born.born}"
    channel.run_file.write_text(leader, encoding="ascii")
    guard._end_all("it stood still for 12.0 s")
    child.wait(30)
    assert channel.why_cut() == "it stood still for 12.0 s"
    guard._end_all("again")
    assert channel.why_cut() == "it stood still for 12.0 s"
    dead = Channel("i1", "slice-1/0", "run-1/2")
    dead.folder.mkdir(parents=True)
    dead.run_file.write_text(leader, encoding="ascii")
    guard._end_all("too late")
    assert dead.why_cut() == ""


def test_who_asks_at_the_door_is_told_when_nothing_is_left(
    guard: Guard, daemon: tuple[Channel, subprocess.Popen[bytes]]
) -> None:
    channel, child = daemon
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(f"{channel.mark}\n".encode())
        guard._answer(theirs)
        assert ours.recv(100) == b"clear\n"
    assert child.wait(30) == -9


@pytest.mark.parametrize("mark", ["i2/slice-1-0/run-1-1", "../../x", "", "x" * 10_000])
def test_nobody_else_is_answered(guard: Guard, mark: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(f"{mark}\n".encode())
        guard._answer(theirs)
        theirs.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""
