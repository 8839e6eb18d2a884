"""What keeps a TPU from the next attempt: who holds its devices, and libtpu's lock file."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sliceform.controller.on_host import devices
from sliceform.controller.on_host import proc as processes
from sliceform.controller.on_host.agent import Agent
from sliceform.controller.on_host.attempt_folder import Channel, lock

# Marks of processes are looked for on the whole machine: tests that use the same ones must not run at once.
pytestmark = [pytest.mark.timeout(30), pytest.mark.xdist_group("marks")]

#: Holds the device; `argv`: the device, and the attempt's run file to hold, too, or nothing.
HOLDER = """
import os, sys, time
held = [open(path) for path in sys.argv[1:] if path]
print("up", flush=True)
time.sleep(600)
"""

#: Takes libtpu's lock as libtpu does.
LOCKER = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644)
fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("accel0", "null"):
        (folder / name).touch()
    return folder


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, *words: object, mark: str | None = None, **env: str) -> subprocess.Popen[str]:
        variables = {**os.environ, **({processes.MARK: mark} if mark else {}), **env}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)], env=variables, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def clean(own_tmp: Path, chips: Path, tmp_path: Path) -> Callable[..., None]:
    def run(**options: Any) -> None:
        given = {"tpu": True, "holders": True, "devices": [f"{chips}/accel*"], "lockfile": tmp_path / "lock"}
        asyncio.run(devices.clean(**{**given, **options}))

    return run


def attempt(own_tmp: Path, *, living: bool) -> tuple[Channel, int | None]:
    """Return an earlier attempt's channel, and its agent's lock if that lives."""
    channel = Channel("i0", "slice-9/0", "run-1/1")
    handle = lock(channel.folder.parent / "agent") if living else None
    return channel, handle


class TestHolders:
    def test_what_a_run_of_ours_left_is_killed_and_nothing_else(
        self, own_tmp: Path, chips: Path, start: Callable[..., Any], clean: Callable[..., None]
    ) -> None:
        channel, _ = attempt(own_tmp, living=False)
        ours = start(HOLDER, chips / "accel0", mark=channel.mark)
        idle = start(HOLDER, chips / "null", mark="i0/slice-8-0/run-1-1")
        strange = start(HOLDER, chips / "accel0")
        clean()
        assert ours.wait(10) == -signal.SIGKILL
        assert idle.poll() is None
        assert strange.poll() is None

    def test_the_users_process_is_known_by_its_run_file_though_that_was_removed(
        self, own_tmp: Path, chips: Path, start: Callable[..., Any], clean: Callable[..., None]
    ) -> None:
        channel, _ = attempt(own_tmp, living=False)
        channel.folder.mkdir(parents=True)
        channel.run_file.touch()
        ours = start(HOLDER, chips / "accel0", channel.run_file)
        channel.run_file.unlink()
        clean()
        assert ours.wait(10) == -signal.SIGKILL

    def test_those_of_others_are_told_with_their_command(
        self, chips: Path, start: Callable[..., Any], clean: Callable[..., None], caplog: pytest.LogCaptureFixture
    ) -> None:
        strange = start(HOLDER, chips / "accel0")
        clean()
        assert strange.poll() is None
        (said,) = [row.getMessage() for row in caplog.records]
        assert f"process {strange.pid} holds {chips}/accel0 and is let be: {sys.executable} -c" in said
        assert len(said) < 500

    def test_those_of_others_are_killed_if_that_is_asked_for(
        self, chips: Path, start: Callable[..., Any], clean: Callable[..., None], caplog: pytest.LogCaptureFixture
    ) -> None:
        strange = [start(HOLDER, chips / "accel0") for _ in range(2)]
        clean(kill_others=True)
        assert [process.wait(10) for process in strange] == [-signal.SIGKILL] * 2
        assert caplog.text.count("is killed") == 2

    @pytest.mark.parametrize("kill_others", [False, True])
    def test_a_run_that_an_agent_looks_after_is_let_be(
        self, own_tmp: Path, chips: Path, start: Callable[..., Any], clean: Callable[..., None], *, kill_others: bool
    ) -> None:
        channel, agent = attempt(own_tmp, living=True)
        theirs = start(HOLDER, chips / "accel0", mark=channel.mark)
        clean(kill_others=kill_others)
        assert theirs.poll() is None
        os.close(agent)
        clean()
        assert theirs.wait(10) == -signal.SIGKILL

    def test_one_whose_folders_are_elsewhere_cannot_be_judged_and_is_let_be(
        self, own_tmp: Path, chips: Path, start: Callable[..., Any], clean: Callable[..., None], tmp_path: Path
    ) -> None:
        theirs = start(HOLDER, chips / "accel0", mark="i0/slice-9-0/run-1-1", TMPDIR=str(tmp_path))
        clean()
        assert theirs.poll() is None

    def test_this_process_and_its_parents_are_never_found(self, chips: Path) -> None:
        with (chips / "accel0").open():
            assert devices.find([f"{chips}/accel*"]) == []

    def test_one_that_cannot_be_killed_is_told_and_stops_nothing(
        self,
        chips: Path,
        start: Callable[..., Any],
        clean: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        strange = start(HOLDER, chips / "accel0")
        monkeypatch.setattr(processes, "send", lambda *_: None)
        clean(kill_others=True, killed_s=0.05)
        assert f"processes {strange.pid} still hold devices" in caplog.text

    def test_are_not_looked_for_unless_asked(
        self, own_tmp: Path, chips: Path, start: Callable[..., Any], clean: Callable[..., None]
    ) -> None:
        channel, _ = attempt(own_tmp, living=False)
        ours = start(HOLDER, chips / "accel0", mark=channel.mark)
        clean(holders=False)
        clean(tpu=False)
        assert ours.poll() is None


class TestLockfile:
    def test_is_removed_when_nobody_holds_it(self, clean: Callable[..., None], tmp_path: Path) -> None:
        clean()
        (tmp_path / "lock").touch()
        clean(holders=False)
        assert not (tmp_path / "lock").exists()

    def test_stays_while_it_is_held(
        self,
        clean: Callable[..., None],
        tmp_path: Path,
        start: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        holder = start(LOCKER, tmp_path / "lock")
        clean()
        assert (tmp_path / "lock").exists()
        assert "is held: something on this host uses the TPU" in caplog.text
        holder.kill()
        holder.wait()
        clean()
        assert not (tmp_path / "lock").exists()

    def test_stays_on_hosts_without_a_tpu(
        self, clean: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "lock").touch()
        monkeypatch.setattr(devices, "_has_chips", lambda: False)
        clean(tpu=False)
        assert (tmp_path / "lock").exists()
        monkeypatch.setattr(devices, "_has_chips", lambda: True)
        clean(tpu=False)
        assert not (tmp_path / "lock").exists()

    @pytest.mark.parametrize(
        ("sudo", "says"),
        [
            ('printf "%s " "$@" > "$(dirname "$0")/asked"; read line && exit 9; exec /bin/"$2" "$3" "$4"', ""),
            ("echo 'sudo: a password is required' >&2; exit 1", "a password is required"),
            ("exec sleep 60", "could not be cleaned: TimeoutExpired"),
            (None, "there is no sudo"),
        ],
    )
    def test_of_another_users_goes_through_sudo_that_never_asks(
        self,
        *,
        clean: Callable[..., None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        sudo: str | None,
        says: str,
    ) -> None:
        commands = tmp_path / "bin"
        commands.mkdir()
        if sudo is not None:
            (commands / "sudo").write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{sudo}\n")
            (commands / "sudo").chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", str(commands))
        monkeypatch.setattr(Path, "unlink", denied)
        lockfile = tmp_path / "lock"
        lockfile.touch()
        began = time.monotonic()
        clean(sudo_s=0.5)
        assert time.monotonic() - began < 30
        assert says in caplog.text
        assert lockfile.exists() is bool(says)
        if not says:
            assert (commands / "asked").read_text() == f"-n rm -f {lockfile} "

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/hostname")])
    def test_that_is_no_file_holds_nothing_up(self, clean: Callable[..., None], tmp_path: Path, make: Any) -> None:
        make(tmp_path / "lock")
        clean()
        assert Path("/etc/hostname").exists()


def denied(*_: Any, **__: Any) -> None:
    raise PermissionError


def test_prepare_cleans_as_it_is_told(own_tmp: Path, tmp_path: Path) -> None:
    lockfile = tmp_path / "lock"
    lockfile.touch()
    agent = Agent("slice-1", 0, "i1", clean={"tpu": True, "lockfile": lockfile})
    asyncio.run(agent.prepare("run-1/1", want_ports=False))
    assert not lockfile.exists()
