"""The alert rules are over metrics and tags that there are, and each is on the page."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sliceform.controller.model.metrics import METRICS
from sliceform.states import Reason, SliceState, SliceTrigger
from sliceform.states.runs import RunTrigger

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docs" / "grafana" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
EXPORTED = runpy.run_path(str(Path(__file__).with_name("generate_docs.py")))["exported"]
BY_SAMPLE = {sample: metric for metric in METRICS for sample in EXPORTED(metric)}
VALUES = {
    "kind": {"slice", "host", "run", "attempt", "fleet"},
    "trigger": {trigger.value for trigger in SliceTrigger},
    "reason": {reason.value for reason in Reason},
    "outcome": {trigger.value for trigger in RunTrigger},
    "state": {state.value for state in SliceState},
}

rules = pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])


@rules
def test_every_metric_and_tag_exists(rule: dict[str, Any]) -> None:
    """By the names under which Prometheus has them."""
    names = re.findall(r"\b(?:ray_)?sliceform_\w+", rule["expr"])
    assert names
    assert set(names) <= BY_SAMPLE.keys()
    for name, selector in re.findall(r"(ray_sliceform_\w+)\{([^}]*)\}", rule["expr"]):
        for tag, values in re.findall(r'(\w+)=~?"([^"]*)"', selector):
            assert tag in BY_SAMPLE[name].tags
            assert set(values.split("|")) <= VALUES[tag]
    tags = {"fleet", "le", *(tag for name in names for tag in BY_SAMPLE[name].tags)}
    told = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    grouped = [tag for tags_ in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"]) for tag in tags_.split(", ")]
    assert {*told, *grouped} <= tags
    assert rule["expr"].count("(") == rule["expr"].count(")")


@rules
def test_settings_and_commands_that_a_rule_names_exist(rule: dict[str, Any]) -> None:
    from sliceform.controller import Settings

    for name in re.findall(r"`(\w+)`", rule["annotations"]["description"]):
        assert name in Settings.model_fields or name in {"reason", "tick_failed"}
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}


def test_the_page_has_every_alert_and_no_other() -> None:
    page = (
        (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition("\n## Alerts\n")[2].partition("\n## ")[0]
    )
    told = re.findall(r"^\| `(Sliceform\w+)` \|", page, re.MULTILINE)
    assert told == [rule["alert"] for rule in RULES]
    assert len(set(told)) == len(told)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_they_fire_when_they_should_and_rest_otherwise() -> None:
    """By Prometheus itself, where it is installed."""
    subprocess.run(["promtool", "test", "rules", "alerts.promtool.yaml"], check=True, cwd=Path(__file__).parent)
