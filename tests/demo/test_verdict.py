"""The verdict: whatever did not happen makes the demo fail, with a sentence that says so."""

import dataclasses
import json
import sys
from typing import Any

import pytest

from sliceform.controller.cli.demo import demo
from sliceform.controller.cli.demo.progress import Report
from sliceform.controller.cli.demo.show import final_report
from sliceform.controller.cli.demo.verdict import Evidence, Kill, gather, missing
from sliceform.controller.errors import ClusterError
from sliceform.controller.model.status import AttemptStatus, SliceStatus
from sliceform.states import Change


def attempt(number: int, *slices: str, outcome: str = "succeeded") -> AttemptStatus:
    return AttemptStatus(number, slices, 100.0 + number, None, outcome, "", ())


def result(**fields: Any) -> dict[str, Any]:
    return {"steps": 400, "fingerprint": "f", "accuracy": 0.97, **fields}


KILL = Kill(at=100.0, slice_id="slice-2", place="b", host="b-1", rank=3, step=190)
FIRST = (Report("begin", 1, 90.0, 0, world=4), Report("step", 1, 91.0, 1, loss=2.0, accuracy=0.1))
SECOND = (Report("begin", 2, 105.0, 160, world=4), Report("step", 2, 106.0, 161, loss=0.1, accuracy=0.9))
GOOD = Evidence(
    fault=True,
    steps=400,
    kill=KILL,
    noticed_at=100.1,
    replacement="slice-3",
    replacement_place="c",
    first_places=frozenset({"a", "b"}),
    replaced_at=102.0,
    attempts=(attempt(1, "slice-1", "slice-2", outcome="preempted"), attempt(2, "slice-1", "slice-3")),
    reports=(*FIRST, *SECOND),
    results=(result(),) * 4,
    error="",
)
QUIET = dataclasses.replace(
    GOOD,
    fault=False,
    kill=None,
    noticed_at=None,
    replacement=None,
    replacement_place=None,
    replaced_at=None,
    attempts=(attempt(1, "slice-1", "slice-2"),),
    reports=FIRST,
)

GAPS = [
    (GOOD, {"kill": None}, "No host was killed"),
    (GOOD, {"noticed_at": None}, "The loss of slice-2 was not noticed."),
    (GOOD, {"replacement": None}, "slice-2 was not replaced."),
    (GOOD, {"replaced_at": None}, "slice-3 never became ready."),
    (GOOD, {"replacement_place": "b"}, "stands at b, not at one that had been free."),
    (GOOD, {"attempts": GOOD.attempts[:1]}, "There was no second attempt."),
    (GOOD, {"attempts": (GOOD.attempts[0], attempt(2, "slice-1", "slice-4"))}, "did not use the replacement."),
    (GOOD, {"reports": FIRST}, "The second attempt did not begin to train."),
    (GOOD, {"reports": (*FIRST, SECOND[0]._replace(step=0))}, "began at step 0, not from a checkpoint."),
    (GOOD, {"attempts": (*GOOD.attempts, attempt(3, "slice-1", "slice-3"))}, "took 3 attempts, not 2."),
    (GOOD, {"results": (), "error": "rank 1 raised"}, "did not finish; 161 of 400 steps were done: rank 1 raised"),
    (GOOD, {"results": (result(steps=399), *GOOD.results)}, "Not every host did all 400 steps."),
    (GOOD, {"results": (result(fingerprint="g"), *GOOD.results)}, "The hosts ended with different networks."),
    (GOOD, {"results": (result(accuracy=0.9),)}, "recognises 90.0% of the held-out images, not more than 90%."),
    (GOOD, {"left": ("slice-3",)}, "Closing the fleet left slice-3 behind."),
    (QUIET, {"attempts": GOOD.attempts}, "took 2 attempts, not 1."),
    (QUIET, {"results": (), "error": "stuck"}, "did not finish; 1 of 400 steps were done: stuck"),
]


@pytest.mark.parametrize("fault", [True, False])
def test_exit_code_0_if_all_of_it_happened(
    *, fault: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = GOOD if fault else QUIET
    assert missing(evidence) == []
    monkeypatch.setattr(demo, "_show", lambda *_: (evidence, "the report"))
    assert demo.show(demo.Options(fault=fault)) == 0
    said = capsys.readouterr()
    assert "the report" in said.out
    assert "All of it happened" in said.out
    assert said.err == ""


def test_programs_get_one_document_and_people_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_show", lambda *_: (GOOD, "the report"))
    assert demo.show(demo.Options(), as_json=True) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["all_of_it_happened"] is True
    assert told["missing"] == []
    assert told["killed"] == {"host": "b-1", "slice": "slice-2", "after_step": 190}
    moments = [told[f"{what}_after_s"] for what in ("noticed", "replaced", "trained_again")]
    assert moments == [0.1, 2.0, 6.0]
    assert [attempt["outcome"] for attempt in told["attempts"]] == ["preempted", "succeeded"]
    assert "the report" in said.err
    monkeypatch.setattr(demo, "_show", lambda *_: (dataclasses.replace(QUIET, results=()), "the report"))
    assert demo.show(demo.Options(fault=False), as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["all_of_it_happened"] is False
    assert told["missing"][0].startswith("The training did not finish")
    assert (told["killed"], told["noticed_after_s"], told["accuracy"]) == (None, None, None)


@pytest.mark.parametrize(("evidence", "change", "sentence"), GAPS, ids=[gap[2] for gap in GAPS])
def test_whatever_is_missing_is_said_and_gives_exit_code_1(
    evidence: Evidence,
    change: dict[str, Any],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed = dataclasses.replace(evidence, **change)

    def shown(*_: Any) -> tuple[Evidence, str]:
        sys.stdout.write("(raylet) a line of Ray's\n")
        return changed, final_report(changed, "status", [])

    monkeypatch.setattr(demo, "_show", shown)
    assert demo.show(demo.Options(fault=evidence.fault)) == 1
    said = capsys.readouterr()
    assert sentence in said.err
    assert "(raylet) a line of Ray's" in said.err
    assert "raylet" not in said.out
    assert "All of it happened" not in said.out


def test_a_cluster_that_does_not_start_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> None:
        raise ClusterError("no host came up")

    monkeypatch.setattr(demo, "_show", refused)
    assert demo.show(demo.Options()) == 1
    assert "no host came up" in capsys.readouterr().err


def test_the_report_tells_how_long_the_training_stood_still() -> None:
    text = final_report(GOOD, "the table", [("the lost slice", "line 1\nline 2")])
    assert "the table" in text
    assert "  line 1\n  line 2" in text
    assert "0.100 s  loss of slice-2 noticed" in text
    assert "2.000 s  replacement slice-3 ready" in text
    assert "6.000 s  first step of the second attempt, from the checkpoint of step 160: 30 steps done again" in text
    assert "97.0%" in text


def change(key: str, trigger: str, at: float) -> Change:
    return Change(1, 1, at, "slice", key, trigger, None, None, "desired")


def test_the_evidence_comes_from_the_history_and_the_status() -> None:
    row = SliceStatus("slice-3", "ready", 0.0, "c", "", "", None, "slice-2", ())
    evidence = gather(
        fault=True,
        steps=400,
        kill=KILL,
        history=[
            change("slice-2", "preempt", 100.1),
            change("slice-1", "prepare", 1.0),
            change("slice-3", "prepare", 102.0),
        ],
        slices=[row._replace(id="slice-1", place="a", replaces=None), row],
        attempts=GOOD.attempts,
        reports=GOOD.reports,
        results=GOOD.results,
        error="",
        first_places=GOOD.first_places,
    )
    assert evidence == GOOD
