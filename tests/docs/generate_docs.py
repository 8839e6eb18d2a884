"""Writes the generated table of docs/configuration.md anew; run it after changing the settings."""

import re
from pathlib import Path

from sliceform.controller import Settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
_BLOCK = re.compile(r"(<!-- generated:settings -->\n).*?(<!-- /generated -->)", re.DOTALL)


def table() -> str:
    """One row per setting, in the order of the class."""
    lines = ["| setting | default | variable | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | {field.default:g} | `SLICEFORM_{name.upper()}` | {meaning} |")
    return "\n".join(lines) + "\n"


def render(page: str) -> str:
    """Write the table anew and leave the rest of the page alone."""
    return _BLOCK.sub(lambda found: f"{found[1]}{table()}{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
