"""Writes the generated tables of the docs anew; run it after changing the settings or the metrics."""

import re
from pathlib import Path

from sliceform.controller import Settings
from sliceform.controller.metrics import METRICS, exported

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def settings() -> str:
    """One row per setting, in the order of the class."""
    lines = ["| setting | default | variable | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        default = str(field.default).lower() if isinstance(field.default, bool) else f"{field.default:g}"
        lines.append(f"| `{name}` | {default} | `SLICEFORM_{name.upper()}` | {meaning} |")
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """One row per metric, under the name without the endings of a histogram's samples."""
    lines = ["| metric | kind | tags | says |", "|---|---|---|---|"]
    for metric in METRICS:
        name = exported(metric)[0].removesuffix("_bucket")
        lines.append(f"| `{name}` | {metric.kind} | {', '.join(f'`{tag}`' for tag in metric.tags)} | {metric.doc} |")
    return "\n".join(lines) + "\n"


#: By page: the name of its block, and what makes it.
TABLES = {"configuration.md": ("settings", settings), "metrics.md": ("metrics", metrics)}


def render(name: str, page: str) -> str:
    """Write a page's table anew and leave the rest of the page alone."""
    block, table = TABLES[name]
    found = re.compile(rf"(<!-- generated:{block} -->\n).*?(<!-- /generated -->)", re.DOTALL)
    return found.sub(lambda marks: f"{marks[1]}{table()}{marks[2]}", page)


if __name__ == "__main__":
    for name in TABLES:
        path = DOCS / name
        path.write_text(render(name, path.read_text(encoding="utf-8")), encoding="utf-8")
