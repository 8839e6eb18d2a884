"""Reading the progress while it is written, by processes that may be killed at any byte."""

import json
from pathlib import Path

from sliceform.controller.cli.demo.progress import ProgressReader, Report


def line(**fields: object) -> str:
    return json.dumps({"kind": "step", "attempt": 1, "at": 5.0, "step": 3, **fields}) + "\n"


def test_nothing_is_there_before_the_file(tmp_path: Path) -> None:
    assert ProgressReader(tmp_path / "none").new() == []


def test_each_line_is_read_once_and_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    reader = ProgressReader(path)
    whole, half = line(step=1), line(step=2)
    path.write_text(whole + half[:9])
    assert [report.step for report in reader.new()] == [1]
    assert reader.new() == []
    with path.open("a") as file:
        file.write(half[9:])
    assert reader.new() == [Report("step", 1, 5.0, 2)]


def test_what_a_killed_process_left_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    path.write_text('{"kind": "st\n[1]\n{"strange": 1}\n' + line(step=8))
    assert [report.step for report in ProgressReader(path).new()] == [8]
