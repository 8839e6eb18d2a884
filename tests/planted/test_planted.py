"""The script that plants faults: what it may change, what it draws, and what becomes of a change."""

import ast
import shutil
from pathlib import Path

import pytest

from . import judge
from .__main__ import LEAST, Judged, report
from .draw import draw, population
from .judge import Grounds, Verdict
from .source import Plant

ROOT = Path(__file__).parents[2]
DOOR = '''"""A door."""


def is_wide(width: int) -> bool:
    """Tell a gate from a door."""
    return width > 2


def steps(stairs: int) -> int:
    """Count the steps of so many stairs."""
    done = 0
    while stairs > 0:
        stairs -= 1
        done += 20
    return done


class Effect:
    """What a door asks for."""
'''
TESTS = '''"""Tests of a door that leave a gap."""

from sliceform.states.door import is_wide, steps


def test_a_gate_is_wide():
    assert is_wide(9)
    assert not is_wide(1)


def test_no_stairs():
    assert steps(0) == 0
    assert steps(2) == 40
'''


@pytest.fixture(scope="module")
def places():
    return population(ROOT)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A small tree, a copy of it to plant in, and which of its tests run what."""
    root = tmp_path_factory.mktemp("sample")
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib"]\n')
    for path, text in {"states/__init__.py": "", "states/door.py": DOOR, "tests/states/test_door.py": TESTS}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    grounds = Grounds(root, tmp_path_factory.mktemp("grounds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge.tempfile, "tempdir", str(tmp_path_factory.mktemp("kept")))
        patch.setattr(judge, "_LIMIT_S", 0.5)
        yield root, grounds, grounds.map()


def change(root: Path, inside: str, after: str) -> Plant:
    plants = [plant for found in population(root).values() for place in found for plant in place]
    return next(plant for plant in plants if (plant.inside, plant.after) == (inside, after))


class TestWhatMayBeChanged:
    def test_is_in_all_files_of_the_core_but_what_draws_it(self, places):
        files = {plant.path for found in places.values() for place in found for plant in place}
        assert "states/diagram.py" not in files
        assert {"states/machine.py", "states/history/queries.py", "controller/reconcile/decide/plan.py"} <= files

    def test_is_each_row_of_each_table(self, places):
        from sliceform.states import ATTEMPT_TABLE, HOST_TABLE, RUN_TABLE, SLICE_TABLE
        from sliceform.states.couplings import COUPLINGS

        tables = (SLICE_TABLE, HOST_TABLE, RUN_TABLE, ATTEMPT_TABLE, COUPLINGS)
        assert len(places["rows"]) == sum(len(table.rows) for table in tables)

    def test_is_each_effect_where_it_becomes_a_request(self, places):
        asked = {plant.before for place in places["effects"] for plant in place}
        for request in ("Reserve(", "Assemble(", "Launch(", "Notify(", "Stop(", "Release("):
            assert any(request in code for code in asked)

    def test_is_changed_at_one_place_into_another_program(self, places):
        for kind, plant in draw(places, seed=1, count=120):
            text = (ROOT / plant.path).read_text(encoding="utf-8")
            changed = plant.plant(text)
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), plant
            assert changed == text[: plant.span.start] + plant.text + text[plant.span.end :]
            if kind == "comparisons":
                assert changed.count("\n") == text.count("\n")


class TestWhatIsDrawn:
    def test_is_the_same_for_a_seed(self, places):
        assert draw(places, 7, 60) == draw(population(ROOT), 7, 60)
        assert draw(places, 7, 60) != draw(places, 8, 60)

    def test_has_as_many_of_each_kind_and_none_twice(self, places):
        drawn = draw(places, 0, 60)
        kinds = [kind for kind, _ in drawn]
        assert [kinds.count(kind) for kind in places] == [20, 20, 20]
        assert len({plant.code for _, plant in drawn}) == 60

    def test_is_all_there_is_where_that_is_less(self, sample):
        places = population(sample[0])
        assert len(draw(places, 0, 1_000)) == len(places["comparisons"]) > 5


class TestAChange:
    @pytest.mark.parametrize(
        ("inside", "after", "found_by", "way"),
        [
            ("is_wide", "return width <= 2", "test_a_gate_is_wide", ""),
            ("is_wide", "return width > 3", "", ""),
            ("steps", "stairs -= 0", "test_no_stairs", "time"),
        ],
    )
    def test_is_judged(self, sample, inside, after, found_by, way):
        root, grounds, runs = sample
        changes = [plant for place in population(root)["comparisons"] for plant in place]
        plant = next(each for each in changes if (each.inside.partition(".")[0], each.after) == (inside, after))
        verdict = grounds.judge(plant, runs)
        assert verdict.found_by.rpartition("::")[2] == found_by
        assert verdict.way == way
        for tree in (root, grounds.tree):
            assert (tree / "states/door.py").read_text() == DOOR

    def test_that_lets_nothing_be_imported_is_found_by_that(self, sample):
        root, grounds, runs = sample
        plant = change(root, "is_wide", "return width <= 2")
        broken = Plant(**{name: getattr(plant, name) for name in plant.__slots__} | {"text": "> ("})
        assert grounds.judge(broken, runs) == ("the import", pytest.approx(0.0, abs=60.0), "import")

    def test_runs_only_the_tests_that_run_it(self, sample):
        root, _, runs = sample
        assert runs.tests(change(root, "is_wide", "return width <= 2")) == [
            "tests/states/test_door.py::test_a_gate_is_wide"
        ]


def test_tests_that_fail_by_themselves_judge_nothing(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(judge.tempfile, "tempdir", str(tmp_path))
    root = shutil.copytree(sample[0], tmp_path / "root")
    (root / "tests/states/test_door.py").write_text("def test_wrong():\n    assert 1 == 2\n")
    with pytest.raises(RuntimeError, match=r"without any change(?s:.)*test_wrong"):
        Grounds(root, tmp_path).map()


def test_what_is_explained_counts_neither_way(places, capsys):
    plant = places["rows"][0][0]
    found, survived = Verdict("a test", 1.0), Verdict("", 1.0)
    done = [*[Judged(plant, found, "")] * 19, Judged(plant, survived, "it is the same"), Judged(plant, survived, "")]
    assert report(done) == LEAST
    assert "21 planted, 19 found, 1 explained, 1 survived: 95.0%" in capsys.readouterr().out
    assert "SURVIVED" in str(done[-1])
    assert "explained: it is the same" in str(done[-2])
