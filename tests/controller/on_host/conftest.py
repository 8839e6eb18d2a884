"""Scripts that stand for hosts: processes of their own, with a folder for temporary files of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sliceform.controller.on_host import attempt_folder as channel
from sliceform.controller.on_host import bootstrap, guard

HIDE = """\
import sys


class _Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "sliceform":
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the tests)", name=name)


sys.meta_path.insert(0, _Hidden)
"""


@pytest.fixture
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Channels of this test, in this process and in those that it starts, are in a folder of its own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return channel.root()


@pytest.fixture(autouse=True)
def nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agents of a test live on in this process: their threads would, too."""
    monkeypatch.setattr(guard.Guard, "start", lambda _: None)


@pytest.fixture
def call() -> dict[str, Any]:
    """What the driver tells the first host of a run on one slice of two hosts."""
    return {
        "incarnation": "i1",
        "attempt": "run-1/2",
        "run_id": "run-1",
        "number": 2,
        "rank": 1,
        "world_size": 2,
        "slice_rank": 0,
        "num_slices": 1,
        "host_rank": 1,
        "hosts_per_slice": 2,
        "slice_id": "slice-1",
        "place": "pod-a",
        "devices": 4,
        "previous": "preempted",
        "coordinator_address": "10.0.0.1:4242",
        "megascale_address": "10.0.0.1:4243",
        "env": {},
        "jax_shutdown_s": 1.0,
    }


@pytest.fixture
def script(own_tmp: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run Python code in a process of its own, and return what it assigned to `answer`.

    `bootstrap` (loaded by path), `sources` and whatever is passed are there. `hidden`: sliceform cannot be imported.
    """
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(HIDE)
    head = """
import importlib.util, json, sys
given = json.load(sys.stdin)
spec = importlib.util.spec_from_file_location("shipped_bootstrap", given["bootstrap"])
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)
sources = given["sources"]
"""

    def run(code: str, *, hidden: bool = True, env: dict[str, str] | None = None, **values: Any) -> Any:
        path = [*([str(hide)] if hidden else []), *(p for p in sys.path if p)]
        given = {"bootstrap": bootstrap.__file__, "sources": bootstrap.sources(), **values}
        done = subprocess.run(
            [sys.executable, "-c", f"{head}\n{code}\nprint(); print(json.dumps(answer))"],
            input=json.dumps(given),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **(env or {})},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
