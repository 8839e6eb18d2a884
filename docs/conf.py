"""How the documentation becomes a site: the pages as they are, and an API reference from the docstrings."""

from importlib.metadata import version as version_of
from typing import Any

from sphinx.application import Sphinx

project = "sliceform"
author = "the sliceform authors"
version = release = version_of("sliceform")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
exclude_patterns = ["deploy", "examples", "grafana"]
html_theme = "furo"
html_title = f"sliceform {release}"

# The pages are written for GitHub: its anchors, and diagrams in fences.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

# Docstrings have names in single backticks, as Markdown has them.
default_role = "code"
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "inherited-members": "tuple,Exception,BaseException,BaseModel,BaseSettings"}


#: Where links of the pages, and of the README that the first page shows, lead on the site.
LINKS = {
    "](../README.md": "](index.md",
    "](../CHANGELOG.md": "](changelog.md",
    "](../SECURITY.md": "](security.md",
    "](CHANGELOG.md": "](changelog.md",
    "](CONTRIBUTING.md": "](contributing.md",
    "](SECURITY.md": "](security.md",
    "[The map of the code](controller/README.md)": "`controller/README.md`, the map of the code,",
    "[LICENSE](LICENSE)": "`LICENSE`",
}


def setup(app: Sphinx) -> None:
    """Let links to files beside this folder lead to what the site has of them."""

    def lead(_app: Sphinx, *where: Any) -> None:
        text: list[str] = where[-1]
        for link, target in LINKS.items():
            text[0] = text[0].replace(link, target)

    app.connect("source-read", lead)
    app.connect("include-read", lead)
