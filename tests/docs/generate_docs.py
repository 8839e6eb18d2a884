"""Writes the generated blocks of the docs anew; run it after changing settings, metrics, tables or what is logged."""

import ast
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sliceform.controller import Settings
from sliceform.controller.model.metrics import METRICS, Metric, MetricKind
from sliceform.states import COUPLINGS, TABLES, markdown_table, mermaid

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def settings() -> str:
    """One row per setting, in the order of the class."""
    lines = ["| setting | default | variable | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        default = f"{field.default:g}" if type(field.default) in {int, float} else str(field.default).lower()
        lines.append(f"| `{name}` | {default} | `SLICEFORM_{name.upper()}` | {meaning} |")
    return "\n".join(lines) + "\n"


def exported(metric: Metric) -> tuple[str, ...]:
    """Return the names under which Ray exports a metric's samples; a counter keeps its `_total`."""
    ends = ("_bucket", "_sum", "_count") if metric.kind is MetricKind.HISTOGRAM else ("",)
    return tuple(f"ray_{metric.name}{end}" for end in ends)


def metrics() -> str:
    """One row per metric, under the name without the endings of a histogram's samples."""
    lines = ["| metric | kind | tags | says |", "|---|---|---|---|"]
    for metric in METRICS:
        name = exported(metric)[0].removesuffix("_bucket")
        lines.append(f"| `{name}` | {metric.kind} | {', '.join(f'`{tag}`' for tag in metric.tags)} | {metric.doc} |")
    return "\n".join(lines) + "\n"


def events() -> str:
    """One row per log event that the page does not explain, with its fields."""
    explained = set(re.findall(r"^\| `(\w+)` \| \w+ \|", _without(DOCS / "logging.md", "events"), re.MULTILINE))
    lines = ["| event | level | fields |", "|---|---|---|"]
    for name, (level, fields) in sorted(logged().items()):
        if name not in explained:
            lines.append(f"| `{name}` | {level} | {', '.join(f'`{field}`' for field in fields)} |")
    return "\n".join(lines) + "\n"


def logged() -> dict[str, tuple[str, tuple[str, ...]]]:
    """By name of every event that the driver's side logs: its level, and the fields that come with it."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for path in sorted((ROOT / "controller").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            level, name = node.func.attr, node.args[0]
            of_log = ast.unparse(node.func.value) in {"log", "self._log"}
            if of_log and isinstance(name, ast.Constant) and re.fullmatch(r"[a-z_]+", str(name.value)):
                fields = tuple(keyword.arg for keyword in node.keywords if keyword.arg)
                found[name.value] = ("error" if level == "exception" else level, fields)
    return found


def _without(path: Path, block: str) -> str:
    return re.sub(rf"<!-- generated:{block} -->.*?<!-- /generated -->", "", path.read_text("utf-8"), flags=re.DOTALL)


def couplings() -> str:
    """One row per coupling of the tables."""
    lines = ["| when a | does | then | do | because |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.table.name} | `{row.trigger}` | {row.whose} | `{row.then}` | {row.doc} |" for row in COUPLINGS.rows
    ]
    return "\n".join(lines) + "\n"


#: By page: its blocks, and what makes each.
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "configuration.md": {"settings": settings},
    "logging.md": {"events": events},
    "metrics.md": {"metrics": metrics},
    "states.md": {
        "couplings": couplings,
        **{f"{kind}-diagram": partial("```mermaid\n{}```\n".format, mermaid(table)) for kind, table in TABLES.items()},
        **{f"{kind}-table": partial(markdown_table, table) for kind, table in TABLES.items()},
    },
}


def render(name: str, page: str) -> str:
    """Write the blocks of a page anew and leave the rest of the page alone; a block that is not there fails."""
    for block, make in BLOCKS[name].items():
        found = re.compile(rf"(<!-- generated:{block} -->\n).*?(<!-- /generated -->)", re.DOTALL)
        page, count = found.subn(lambda marks, make=make: f"{marks[1]}{make()}{marks[2]}", page)
        assert count == 1, f"{name} has {count} blocks {block!r}"
    return page


if __name__ == "__main__":
    for name in BLOCKS:
        path = DOCS / name
        path.write_text(render(name, path.read_text(encoding="utf-8")), encoding="utf-8")
