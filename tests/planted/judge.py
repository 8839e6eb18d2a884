"""Judge changes: on a copy of the tree, by the tests of the pure part that run the changed line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from coverage import CoverageData

from .source import Plant

#: The tests of the pure part; those of them that are about Ray, about hosts, or about processes that end are not.
_PURE = ("tests/states", "tests/controller", "tests/simulation")
_NOT_PURE = (
    "on_host",
    "journal/test_kill.py",
    *("test_compat.py", "test_explain.py", "test_node_reader.py", "test_pack.py", "test_termination.py"),
    *("test_ray_fence.py", "test_ray_work.py"),
)
#: A test may take so many seconds, and so many times what it takes without a change.
_LIMIT_S, _LIMIT_TIMES = 15.0, 6.0
#: The same for all of its tests together, where the limit of one is not heard.
_TOGETHER_S, _TOGETHER_TIMES = 120.0, 3.0


class Verdict(NamedTuple):
    """What became of a change."""

    #: The test that found it, or why nothing could be run; empty if it survived.
    found_by: str
    seconds: float
    #: Which of the ways of being found that are no assertion: "import" or "time"; otherwise empty.
    way: str = ""


@dataclass(frozen=True)
class Runs:
    """Which test runs which line, and how long each takes."""

    coverage: CoverageData
    root: Path
    times: dict[str, float]
    not_measured: frozenset[str]

    def tests(self, plant: Plant) -> list[str]:
        """Give the tests that run what is changed, the quickest first; all of them for what runs at the import."""
        lines = self.coverage.contexts_by_lineno(str(self.root / plant.path))
        first, last = plant.lines
        contexts = {context for line in range(first, last + 1) for context in lines.get(line, ())}
        everywhere = plant.at_import or "" in contexts
        ran = {context.rpartition("|")[0] for context in contexts} | self.not_measured
        return sorted((name for name in self.times if everywhere or name in ran), key=self.times.__getitem__)


class Grounds:
    """A copy of a tree in a temporary folder, where changes are planted and tests run."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Copy the tree, without what is hidden or built, into a new folder in `folder`."""
        self._folder = Path(tempfile.mkdtemp(dir=folder)).resolve()
        self.tree = self._folder / "tree"
        shutil.copytree(root, self.tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build"))
        package = self._folder / "import" / "sliceform"
        package.mkdir(parents=True)
        for part in ("controller", "states"):
            if (self.tree / part).exists():
                (package / part).symlink_to(self.tree / part)
        self._stamp = time.time()

    def map(self) -> Runs:
        """Run the pure part once with coverage; what came of it is kept in the temporary folder for the next time.

        Raises:
            RuntimeError: it fails without any change.

        """
        kept = Path(tempfile.gettempdir()) / f"planted-{_digest(self.tree)}"
        if not (kept / "seen.json").exists():
            kept.mkdir(exist_ok=True)
            arguments = ["--cov", "--cov-context=test", "--cov-report="]
            code = self._pytest(arguments, self._folder / "seen.json", COVERAGE_FILE=str(kept / "coverage"))
            if code:
                raise RuntimeError(f"the tests fail without any change:\n{self._said()[-3_000:]}")
            shutil.move(self._folder / "seen.json", kept / "seen.json")
            (kept / "root").write_text(str(self.tree), encoding="utf-8")
        coverage = CoverageData(str(kept / "coverage"))
        coverage.read()
        seen = json.loads((kept / "seen.json").read_text(encoding="utf-8"))
        root = Path((kept / "root").read_text(encoding="utf-8"))
        return Runs(coverage, root, seen["times"], frozenset(seen["not_measured"]))

    def judge(self, plant: Plant, runs: Runs) -> Verdict:
        """Plant a change, run the tests that run it until one fails, and take it out again."""
        tests = runs.tests(plant)
        limits = {name: _LIMIT_S + _LIMIT_TIMES * runs.times[name] for name in tests}
        limit = _TOGETHER_S + _TOGETHER_TIMES * sum(runs.times[name] for name in tests)
        listed, seen = self._folder / "tests.json", self._folder / "seen.json"
        listed.write_text(json.dumps(limits), encoding="utf-8")
        seen.unlink(missing_ok=True)
        file = self.tree / plant.path
        text = file.read_text(encoding="utf-8")
        started = time.monotonic()
        try:
            self._write(file, plant.plant(text))
            code = self._pytest(["-x"], seen, limit, PLANTED_TESTS=str(listed)) if tests else 0
        finally:
            self._write(file, text)
        seconds = time.monotonic() - started
        if code == 0:
            return Verdict("", seconds)
        if code is None:
            return Verdict("all of its tests", seconds, "time")
        failed = json.loads(seen.read_text(encoding="utf-8"))["failed"] if seen.exists() else None
        if failed is None:
            return Verdict("the import", seconds, "import")
        name, late = failed
        return Verdict(name, seconds, "time" if late else "")

    def _write(self, file: Path, text: str) -> None:
        """Write a file with a time of its own: compiled code is told from old one by whole seconds and size alone."""
        file.write_text(text, encoding="utf-8")
        self._stamp += 2.0
        os.utime(file, (self._stamp, self._stamp))

    def _pytest(self, arguments: list[str], seen: Path, limit_s: float | None = None, **environment: str) -> int | None:
        """Run the pure part; return pytest's exit code, or None if that took too long and was ended."""
        paths = [path for path in _PURE if (self.tree / path).exists()]
        left_out = [f"--ignore={self.tree / 'tests' / 'controller' / path}" for path in _NOT_PURE]
        here = Path(__file__)
        search = os.pathsep.join((str(self._folder / "import"), str(here.parent)))
        options = [
            "-q",
            "-p",
            here.with_name("plugin.py").stem,
            "-p",
            "no:cacheprovider",
            "-m",
            "not ray and not bench",
        ]
        with (self._folder / "output").open("wb") as output:
            try:
                return subprocess.run(
                    [sys.executable, "-m", "pytest", *options, *arguments, *left_out, *paths],
                    check=False,
                    cwd=self.tree,
                    env={**os.environ, "PYTHONPATH": search, "PLANTED_SEEN": str(seen), **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=limit_s,
                ).returncode
            except subprocess.TimeoutExpired:
                return None

    def _said(self) -> str:
        return (self._folder / "output").read_text(encoding="utf-8", errors="replace")


def _digest(tree: Path) -> str:
    """Tell the content of a tree from any other."""
    found = hashlib.sha256()
    for path in _files(tree):
        found.update(path.relative_to(tree).as_posix().encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _files(tree: Path) -> Iterator[Path]:
    """Give the files that decide what tests do."""
    for part in ("controller", "states", "tests", "pyproject.toml"):
        top = tree / part
        yield from sorted(path for path in (top.rglob("*") if top.is_dir() else [top]) if path.is_file())
