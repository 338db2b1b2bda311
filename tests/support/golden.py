"""Texts that tests expect, in files beside them: ``golden/FILE.TEST.txt``; ``pytest --update-golden`` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["FOLDER", "OPTION", "Golden", "check_golden", "golden", "golden_path"]

OPTION = "--update-golden"
FOLDER = "golden"

Golden = Callable[..., None]
"""Called once in a test, with texts by name, such as ``before=`` and ``after=``."""


def golden_path(test: Path, name: str) -> Path:
    """The file for the test called `name` in the file `test`."""
    return test.parent / FOLDER / f"{test.stem}.{re.sub(r'[^A-Za-z0-9_]+', '-', name).strip('-')}.txt"


def _joined(texts: dict[str, str]) -> str:
    """Texts one below the other, each under its name."""
    return "\n\n".join(f"# {name}\n{text.rstrip()}" for name, text in texts.items()) + "\n"


def check_golden(path: Path, texts: dict[str, str], update: bool) -> None:
    """Fails where the file holds other texts or is none; with `update` writes it."""
    text = _joined(texts)
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text == expected, f"not as in {path}; if it is right now, run pytest {OPTION} and look at the difference"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares texts with those that the test's own file holds."""
    path, update = golden_path(request.path, request.node.name), bool(request.config.getoption(OPTION))
    return lambda **texts: check_golden(path, texts, update)
