"""How Sphinx builds these pages: make docs."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]

project = _PROJECT["name"]
version = release = _PROJECT["version"]
project_copyright = "the authors of fastvideo-core, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4

default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"{project} {version}"
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "github-dark"


def _no_type_before_a_colon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Begin an attribute's docstring with an escaped space: Napoleon would take the text up to a colon for a type."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\ ")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _no_type_before_a_colon, priority=100)
