"""Every Python block of the documentation runs, page by page, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.tools import needs

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = {"estimate.md": ("aarch64-linux-gnu-g++", "qemu-aarch64", "llvm-mca")}
"""By page, tools that its blocks use."""
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str]]:
    """The line each block begins at, and its code."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found.group(1)) for found in _BLOCK.finditer(text)]


def cases() -> list[Any]:
    """The pages that have blocks, each with what it needs."""
    found = [page for page in PAGES if blocks(page)]
    return [pytest.param(page, marks=needs(*NEEDS.get(page.name, ())), id=page.name) for page in found]


@pytest.mark.parametrize("page", cases())
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, code in blocks(page):
        # Blank lines before it make tracebacks name the page's own lines.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def test_there_are_blocks_to_run() -> None:
    assert sum(len(blocks(page)) for page in PAGES) > 10
