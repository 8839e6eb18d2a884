"""The map beside the code, controller/README.md, names what is there."""

import re
from pathlib import Path

CONTROLLER = Path(__file__).parents[2] / "controller"
TEXT = (CONTROLLER / "README.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([\w/]+(?:/|\.py))`", TEXT))


def test_every_path_that_it_names_exists() -> None:
    """Paths are those of the folder; `states/...` is beside it."""
    assert len(NAMED) > 30
    missing = {path for path in NAMED if not (CONTROLLER / path).exists() and not (CONTROLLER.parent / path).exists()}
    assert missing == set()


def test_it_names_every_room() -> None:
    rooms = {f"{path.parent.name}/" for path in CONTROLLER.glob("*/__init__.py")}
    assert rooms <= NAMED


def test_the_steps_are_those_of_the_loop_in_their_order() -> None:
    steps = re.findall(r"^\| (\d) (\w+) \|", TEXT, re.MULTILINE)
    loop = (CONTROLLER / "reconcile" / "loop.py").read_text(encoding="utf-8")
    at = [loop.lower().index(f"{number}. {name}") for number, name in steps]
    assert [number for number, _ in steps] == list("1234567")
    assert at == sorted(at)


def test_the_way_of_a_lost_host_leads_where_it_says() -> None:
    function = re.search(r"`reconcile/decide/sync.py`, `(\w+)`, makes the loss a `preempt`", TEXT)
    assert function is not None
    body = (CONTROLLER / "reconcile" / "decide" / "sync.py").read_text(encoding="utf-8")
    assert "SliceTrigger.PREEMPT" in body.partition(f"def {function[1]}(")[2].partition("\ndef ")[0]
