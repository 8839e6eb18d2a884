"""Writes the generated blocks of docs/states.md anew; run it after changing a table."""

from pathlib import Path

from sliceform.states.diagram import render_page

PAGE = Path(__file__).parents[2] / "docs" / "states.md"

if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
