"""Sphinx settings: Markdown pages, and the public functions from their docstrings."""

from __future__ import annotations

from importlib import metadata

project = "reconvene"
author = "The reconvene founders"
version = release = metadata.version("reconvene")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"reconvene {release}"
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
