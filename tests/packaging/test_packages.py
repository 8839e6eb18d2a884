"""What is built from the sources is complete: the wheel, the source distribution, and the site of the documentation."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from sliceform import controller

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: All that the checkout is built from.
SOURCES = ("controller", "states", "pyproject.toml", "README.md", "LICENSE")
#: Packages that are expensive to import, and that a program which only imports sliceform does not need.
HEAVY = ("ray", "jax", "pydantic", "numpy")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end, and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both distributions from a copy of the sources; the folder that has them."""
    work = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, work / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, work / name)
    backend = "import setuptools.build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    run(sys.executable, "-c", backend, cwd=work)
    return work / "dist"


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into an environment of its own, which finds the rest in this one; its Python."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=built)
    python = place / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    run(*pip, cwd=built)
    # Files of that kind are not read there in turn: the sources of this checkout are not found.
    (own,) = place.glob("lib/python*/site-packages")
    (own / "needs.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


def modules(names: list[str]) -> set[str]:
    """Return what is not about the distribution: modules, and what lies beside them."""
    return {name for name in names if name.startswith("sliceform/") and not name.endswith("/")}


def test_the_wheel_has_all_that_the_sources_have(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    sources = {
        f"sliceform/{path.relative_to(ROOT)}"
        for folder in ("controller", "states")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".css", ".html", ".js", ".typed"}
    }
    assert modules(zipfile.ZipFile(wheel).namelist()) == sources


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    run(sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('dist')", cwd=tree)
    (again,) = (tree / "dist").glob("*.whl")
    (wheel,) = built.glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_importing_what_is_installed_loads_nothing_heavy(installed: Path, tmp_path: Path) -> None:
    program = f"""
import sys
import sliceform.controller, sliceform.states
assert {str(ROOT)!r} not in sliceform.controller.__file__, sliceform.controller.__file__
print(sliceform.controller.__version__, [name for name in {HEAVY} if name in sys.modules])
"""
    assert run(installed, "-c", program, cwd=tmp_path) == f"{PROJECT['version']} []\n"


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    assert "Usage" in run(installed.with_name("sliceform"), "--help", cwd=tmp_path)


def test_a_program_of_a_user_is_checked_against_what_is_installed(installed: Path, tmp_path: Path) -> None:
    """The right one passes; in the wrong one mypy names what is wrong."""
    shutil.copy(ROOT / "docs" / "examples" / "embed.py", tmp_path / "right.py")
    (tmp_path / "wrong.py").write_text("from sliceform.controller import TpuSlice\n\nTpuSlice(pod_type=8)\n")
    check = ("-m", "mypy", "--python-executable", installed, "--cache-dir", tmp_path / "cache", "--config-file=")
    run(sys.executable, *check, "--follow-untyped-imports", "right.py", cwd=tmp_path)
    with pytest.raises(AssertionError, match=r'wrong\.py:3: error: Argument "pod_type"'):
        run(sys.executable, *check, "wrong.py", cwd=tmp_path)


def test_jax_is_an_extra(built: Path) -> None:
    """A driver needs none: it is large, and only functions on hosts import it."""
    (wheel,) = built.glob("*.whl")
    packed = zipfile.ZipFile(wheel)
    (name,) = [name for name in packed.namelist() if name.endswith(".dist-info/METADATA")]
    needed = [line for line in packed.read(name).decode().splitlines() if line.startswith("Requires-Dist: jax")]
    assert needed
    assert all("extra ==" in line for line in needed), needed


@pytest.mark.timeout(240)
def test_the_site_of_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    run(sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "docs", tmp_path / "site", cwd=ROOT)
    reference = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    missing = {name for name in controller.__all__ if f'id="sliceform.controller.{name}"' not in reference}
    assert missing == set()
    assert 'id="sliceform.controller.SliceController.submit"' in reference
