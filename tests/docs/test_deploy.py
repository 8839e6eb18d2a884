"""Scripts and programs of the deployment pages: they run, and do what their pages say.

What starts Ray nodes is marked `ray`. Every cluster here has a port, a folder and a token of its own.
"""

import contextlib
import os
import re
import runpy
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ray._private.accelerators import tpu
from ray.scripts.scripts import start as ray_start

from sliceform.controller import Settings, TpuSlice, open_journal

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FILES = DOCS / "deploy"
EXAMPLES = DOCS / "examples"
SCRIPTS = [FILES / "fleet.sbatch", FILES / "tpu-vm-startup.sh"]
PAGES = runpy.run_path(str(Path(__file__).with_name("test_pages.py")))
DEPLOYMENT = ["deploy", "one-machine", "kuberay", "tpu-vm", "slurm", "failures", "upgrades", "sizing"]
#: Where the commands of this environment are: `python`, `ray`, `sliceform`.
BIN = Path(sys.executable).parent
READY_S = 90.0


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[Any]:
    return [block for block in PAGES["blocks"](DOCS / f"{name}.md") if block.language == language]


# What can be seen without running it.


@pytest.mark.parametrize("name", DEPLOYMENT)
def test_every_shell_block_is_run_here_or_says_why_not(name: str) -> None:
    run = {"one-machine": 1}  # by `test_a_box_with_gpus`
    assert len([block for block in blocks(name, "sh") if "not run" not in block.marks]) == run.get(name, 0)


@pytest.mark.parametrize("name", ["one-machine", "kuberay", "tpu-vm", "slurm", "failures", "upgrades"])
def test_what_was_only_imitated_is_said_first_and_what_was_run_last(name: str) -> None:
    first = page(name).split("\n\n")[1]
    assert re.search(r"\bonly\b|Nothing of this page was run|not tried", first)
    assert re.findall(r"^## (.*)$", page(name), re.MULTILINE)[-1] == "What was run"


def test_every_file_is_on_a_page() -> None:
    linked = {target for name in DEPLOYMENT for target in re.findall(r"\(deploy/([\w.-]+)\)", page(name))}
    assert {path.name for path in FILES.iterdir()} == linked


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_read_by_a_shell(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


def test_slurm_leaves_the_driver_time_to_close() -> None:
    text = (FILES / "fleet.sbatch").read_text(encoding="utf-8")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    kind, _, seconds = options["signal"].partition("@")
    assert kind == "B:USR1"
    assert float(seconds) > Settings().close_grace_s + 30
    assert {"exclusive", "no-kill"} <= options.keys()


def test_ports_do_not_overlap() -> None:
    """Those of Ray's workers, of attempts, and of the GCS, as SECURITY.md has them."""
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    first, last = map(int, re.findall(r"^\| (\d+) to (\d+) of every node", security, re.MULTILINE)[0])
    assert (first, last) == (10002, 19999)
    assert not set(range(first, last + 1)) & set(Settings().port_range)
    assert Settings().coordinator_ports in security
    assert str(first) in page("slurm")
    assert str(last) in page("slurm")


def options_of_ray_start() -> set[str]:
    return {option for parameter in ray_start.params for option in parameter.opts}


@pytest.mark.parametrize(
    "path", [*FILES.glob("*.sbatch"), *FILES.glob("*.sh"), *(DOCS / f"{n}.md" for n in DEPLOYMENT)]
)
def test_options_of_ray_start_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^[^`\n]*\bray start (--[^`\n]*)$", text, re.MULTILINE):
        assert set(re.findall(r"(--[\w-]+)", line)) <= options_of_ray_start()


# The start-up script of TPU VMs.


@pytest.fixture
def stand_ins(tmp_path: Path) -> Callable[[Mapping[str, str]], dict[str, str]]:
    """Put scripts of these names before everything else; return the variables for it."""

    def put(scripts: Mapping[str, str]) -> dict[str, str]:
        folder = tmp_path / "stand-ins"
        folder.mkdir(exist_ok=True)
        for name, text in scripts.items():
            path = folder / name
            path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
            path.chmod(0o755)
        return {**os.environ, "PATH": os.pathsep.join([str(folder), str(BIN), os.environ["PATH"]])}

    return put


CURL = """
case ${@: -1} in
*/instance/attributes/ray-head) echo -n 10.0.0.2:6379 ;;
*/instance/attributes/ray-auth-token) echo -n the-token ;;
*) exit 22 ;;
esac
"""


def started_up(tmp_path: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the script, with the two folders that it writes to in this test's own."""
    text = (FILES / "tpu-vm-startup.sh").read_text(encoding="utf-8")
    for folder in ("/etc/systemd/system", "/opt/fleet"):
        assert folder in text
        (tmp_path / folder[1:]).mkdir(parents=True)
        text = text.replace(folder, str(tmp_path / folder[1:]))
    return subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, check=False)


def test_the_start_up_script_makes_a_unit_that_joins_the_head(tmp_path: Path, stand_ins: Callable[..., Any]) -> None:
    said = tmp_path / "said"
    venv = f'echo "python3.11 $*" >> {said}; mkdir -p "$3/bin"; cp "$(dirname "$0")/pip" "$3/bin/pip"'
    told = {name: f'echo "{name} $*" >> {said}' for name in ("pip", "systemctl")}
    done = started_up(tmp_path, stand_ins({"curl": CURL, "python3.11": venv, **told}))
    assert done.returncode == 0, done.stderr
    path = tmp_path / "etc/systemd/system/ray.service"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # the token is in it
    unit = re.findall(r"^(\w+)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    variables = dict(pair.split("=", 1) for key, value in unit if key == "Environment" for pair in value.split())
    assert (variables["RAY_AUTH_MODE"], variables["RAY_AUTH_TOKEN"]) == ("token", "the-token")
    words = dict(unit)["ExecStart"].split()
    assert words[0] == f"{tmp_path}/opt/fleet/bin/ray"
    assert {"--address=10.0.0.2:6379", "--block"} <= set(words[2:])
    assert {word.partition("=")[0] for word in words[2:]} <= options_of_ray_start()
    drain_s, stop_s = float(variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]), float(dict(unit)["TimeoutStopSec"])
    assert drain_s < stop_s <= 30  # what a Spot VM has
    *_, installs, reload_, enable = said.read_text().splitlines()
    assert "ray[default]==2.60.0" in installs
    assert (reload_, enable) == ("systemctl daemon-reload", "systemctl restart ray.service")


def test_without_its_metadata_the_start_up_script_changes_nothing(
    tmp_path: Path, stand_ins: Callable[..., Any]
) -> None:
    done = started_up(tmp_path, stand_ins({"curl": "exit 22", "systemctl": "exit 1"}))
    assert done.returncode == 22
    assert not list((tmp_path / "etc/systemd/system").iterdir())


def test_ray_finds_out_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels and resources of worker 0, from the metadata server alone."""
    shape = TpuSlice("v4-16")
    attributes = {
        "accelerator-type": "v4-16",
        "instance-id": "fleet-a",
        "agent-worker-number": "0",
        "tpu-env": f"ZONE: 'us-central2-b'\nTOPOLOGY: '{shape.topology}'\n",
    }
    table = page("tpu-vm").partition("\n## What Ray finds out\n")[2].partition("\n## ")[0]
    assert all(f"`{key}`" in table for key in attributes)
    for name in ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE", "TPU_TOPOLOGY"):
        assert f"`{name}`" in table
        monkeypatch.delenv(name, raising=False)

    def metadata(key: str) -> str | None:
        return attributes.get(key)

    monkeypatch.setattr(tpu, "_get_tpu_metadata", metadata)
    labels = tpu.TPUAcceleratorManager.get_current_node_accelerator_labels()
    assert set(re.findall(r"label `([\w./-]+)`", table)) == labels.keys()
    assert labels["ray.io/tpu-slice-name"] == "fleet-a"
    assert labels["ray.io/tpu-pod-type"] == shape.pod_type
    assert labels["ray.io/tpu-topology"] == shape.topology
    resources = tpu.TPUAcceleratorManager.get_current_node_additional_resources()
    assert resources == {"fleet-a": 1, shape.head_resource: 1}


# What starts Ray nodes.


@pytest.fixture
def ray_variables(tmp_path: Path) -> dict[str, str]:
    """Variables for a cluster that no other of this machine knows of."""
    home = tmp_path / "home"
    home.mkdir()
    return {**os.environ, "HOME": str(home), "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]])}


@pytest.fixture
def short_folder() -> Iterator[str]:
    """A folder whose name leaves room for the names of sockets."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sf") as folder:
        yield folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def in_a_session(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a session of its own, and end all of that session."""
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in members(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + 10
            while members(process.pid) and time.monotonic() < end:
                process.poll()
                time.sleep(0.05)
        process.wait()


def members(session: int) -> list[int]:
    """Return the processes of a session, by id."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = path.read_text().rpartition(") ")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(path.parent.name))
    return found


def printed(name: str, of: str) -> str:
    """Return what a page says that a file prints."""
    (block,) = (block for block in blocks(name, "text") if block.marks.get("prints") == f"examples/{of}")
    text: str = block.text
    return text


def output_of(name: str, env: dict[str, str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.ray
@pytest.mark.long
def test_a_laptop(tmp_path: Path, ray_variables: dict[str, str], short_folder: str) -> None:
    """The program as it is; and the token that Ray leaves, of which the page warns."""
    env = {**ray_variables, "RAY_TMPDIR": short_folder}
    assert output_of("laptop.py", env, tmp_path) == printed("one-machine", "laptop.py")
    assert (Path(env["HOME"]) / ".ray" / "auth_token").exists()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_box_with_gpus(tmp_path: Path, ray_variables: dict[str, str], short_folder: str) -> None:
    """The commands of the page in their order; the node is kept in the foreground, so that it can be ended."""
    (block,) = (block for block in blocks("one-machine", "sh") if "not run" not in block.marks)
    mode, token, start, program = block.text.splitlines()
    port = str(free_port())
    # The dashboard and Ray Client have ports that other clusters on this machine may have.
    own = f"--block --include-dashboard=false --ray-client-server-port={free_port()} --temp-dir={short_folder}"
    with in_a_session(
        ["bash", "-ec", f"{mode}\n{token}\nexec {start.replace('6379', port)} {own}"],
        env=ray_variables,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    ):
        wait_for_port(int(port))
        done = subprocess.run(
            [
                "bash",
                "-ec",
                f"{mode}\n{program.replace('6379', port).replace('gpu_box.py', str(EXAMPLES / 'gpu_box.py'))}",
            ],
            env=ray_variables,
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )
        assert done.stdout == printed("one-machine", "gpu_box.py"), done.stderr


def wait_for_port(port: int) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on {port}")


SRUN = """
while [[ $1 == --* ]]; do
    case $1 in --nodelist=*) echo "${1#*=}" >> "$SAID" ;; esac
    shift
done
exec "$@"
"""

#: Works until it is told to stop, and then leaves a file.
SAVING = """
import logging, sys
import structlog
from sliceform.controller import GpuSlice, SliceController
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
def train(folder):
    import pathlib, time
    from sliceform.controller import host_context
    me = host_context()
    pathlib.Path(folder, f"began-{me.rank}").touch()
    while not me.should_stop():
        time.sleep(0.05)
    pathlib.Path(folder, f"saved-{me.rank}").touch()
with SliceController(GpuSlice(hosts=2, gpus_per_host=8), name="train", journal="saving.db") as fleet:
    fleet.submit(train, sys.argv[1]).result()
"""


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_batch_file_runs_a_driver_and_hands_it_the_signal(
    tmp_path: Path, ray_variables: dict[str, str], short_folder: str, stand_ins: Callable[..., Any]
) -> None:
    """Two nodes that are this machine: the driver's output, then Slurm's signal to the script while work runs."""
    saving = tmp_path / "saving.py"
    saving.write_text(SAVING)
    both = tmp_path / "both.sh"
    both.write_text(f"set -e\npython {EXAMPLES / 'driver.py'} gpu 1\nexec python {saving} {tmp_path}\n")
    env = {
        **ray_variables,
        "PATH": stand_ins({"srun": SRUN, "scontrol": "echo a; echo b"})["PATH"],
        "SAID": str(tmp_path / "said"),
        "GCS_PORT": str(free_port()),
        "RAY_TMPDIR": short_folder,
        "SLURM_JOB_NODELIST": "a,b",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_GPUS_PER_NODE": "a100:8",
        "RAY_AUTH_TOKEN": secrets.token_hex(),
    }
    with in_a_session(
        ["bash", FILES / "fleet.sbatch", "bash", both], env=env, cwd=tmp_path, stdout=subprocess.PIPE
    ) as job:
        end = time.monotonic() + READY_S
        while not all((tmp_path / f"began-{rank}").exists() for rank in (0, 1)):
            assert job.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        job.send_signal(signal.SIGUSR1)
        job.wait(READY_S)
        assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}
    assert job.stdout is not None
    lines = job.stdout.read().splitlines()
    job.stdout.close()
    assert [line for line in lines if line.startswith("rank ")] == ["rank 0 of 2", "rank 1 of 2"]
    assert (tmp_path / "said").read_text().split() == ["a", "b"]
    with open_journal(tmp_path / "saving.db") as journal:
        assert journal.writing() == "closed"
