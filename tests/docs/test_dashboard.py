"""The dashboard shows every metric that there is, and no other, in a file that Grafana imports."""

import json
import re
import runpy
from pathlib import Path

from sliceform.controller.model.metrics import METRICS

DASHBOARD = json.loads((Path(__file__).parents[2] / "docs" / "grafana" / "sliceform.json").read_text(encoding="utf-8"))
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
EXPORTED = runpy.run_path(str(Path(__file__).with_name("generate_docs.py")))["exported"]
BY_SAMPLE = {sample: metric for metric in METRICS for sample in EXPORTED(metric)}


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_metric_is_shown_and_every_name_exists() -> None:
    text = json.dumps(DASHBOARD)
    shown = {BY_SAMPLE[name] for name in re.findall(r"ray_sliceform_\w+", text)}
    assert shown == set(METRICS)
    assert not re.findall(r"(?<!ray_)sliceform_\w+", text)


def test_expressions_use_the_tags_that_a_metric_has_and_choose_fleets() -> None:
    for expression in expressions():
        assert expression.count("(") == expression.count(")")
        for name, selector in re.findall(r"(ray_sliceform_\w+)\{([^}]*)\}", expression):
            tags = {"fleet", "le", *BY_SAMPLE[name].tags}
            assert 'fleet=~"$fleet"' in selector
            assert set(re.findall(r"(\w+)=", selector)) <= tags
            for names in re.findall(r"by \(([^)]*)\)", expression):
                assert set(names.split(", ")) <= tags
        assert len(re.findall(r"ray_sliceform_\w+\{", expression)) == expression.count("ray_sliceform_")


def test_legends_name_tags_that_are_left() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            left = set(re.findall(r"by \(([^)]*)\)", target["expr"])[0].split(", "))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


def test_the_file_has_what_an_import_needs() -> None:
    """An input for the data source, which everything uses; panels that do not overlap; a list of fleets."""
    (source,) = DASHBOARD["__inputs"]
    assert (source["name"], source["type"], source["pluginId"]) == ("DS_PROMETHEUS", "datasource", "prometheus")
    assert {row["type"] for row in DASHBOARD["__requires"]} == {"grafana", "datasource", "panel"}
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["title"]
    assert DASHBOARD["uid"]
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["datasource"]) == ("fleet", "query", SOURCE)
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        assert panel["type"] in {row["id"] for row in DASHBOARD["__requires"]}
        assert panel["datasource"] == SOURCE
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert all(target["datasource"] == SOURCE for target in panel["targets"])
