"""Links from a page to another file lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGES = [*TOP.glob("*.md"), *(TOP / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_are_named_are_there(page: Path) -> None:
    """Also where a file has moved since."""
    text = page.read_text(encoding="utf-8")
    folders = "frontend|passes|backends|driver|reconvene|tests|benchmarks|docs|requirements"
    for name in re.findall(rf"`((?:{folders})/[\w./*-]*)`", text):
        assert any(TOP.glob(name.rstrip("/"))), name


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"^[\w*/-]+$", (TOP / "docs" / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {path.stem for path in (TOP / "docs").glob("*.md")} - {"index"}
    assert pages == {name for name in listed if "*" not in name} and len(listed) == len(set(listed))
