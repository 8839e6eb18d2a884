"""Tables in the docs say what the code says."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from sliceform.controller.follow.log import _EVENTS

ROOT = Path(__file__).parents[2]
GENERATOR = runpy.run_path(str(Path(__file__).with_name("generate_docs.py")))


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def source() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "controller").rglob("*.py"))


def rows(text: str, heading: str) -> set[str]:
    """Return the first cells of the table under a heading, without their backticks."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE))


@pytest.mark.parametrize("name", GENERATOR["BLOCKS"])
def test_generated_blocks_are_current(name: str) -> None:
    """If this fails, run tests/docs/generate_docs.py."""
    text = page(name)
    assert set(re.findall(r"<!-- generated:([\w-]+) -->", text)) == GENERATOR["BLOCKS"][name].keys()
    assert GENERATOR["render"](name, text) == text


def test_only_the_blocks_of_a_page_are_written() -> None:
    text = page("metrics.md")
    stale = re.sub(r"(?s)(generated:metrics -->\n).*?(<!-- /generated)", r"\1old\n\2", text)
    assert stale != text
    assert GENERATOR["render"]("metrics.md", stale) == text


def test_every_code_of_why_is_told() -> None:
    codes = set(re.findall(r'Finding\(\s*"(\w+)"', source())) | {"effect_failed"}
    assert rows(page("debugging.md"), "Why is it not ready?") == codes


def test_log_events_that_are_told_exist() -> None:
    told = rows(page("logging.md"), "The events of the history")
    assert told == {*_EVENTS.values(), "attempt_started", "attempt_ended", "changes_missed"}
    others = rows(page("logging.md"), "Other events")
    logged = GENERATOR["logged"]()
    assert others == set(logged) - told


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    assert rows(page("decisions.md"), "Dependencies") == {re.split(r"[<>=~]", line)[0] for line in wanted}
