"""What was compiled or chosen is made again when a source of the backend changes, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reconvene.backends.code import code_version as home
from reconvene.backends.code.code_version import code_version

BACKENDS = Path(home.__file__).parents[1]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "backends"
    shutil.copytree(BACKENDS, folder, ignore=lambda _, names: [name for name in names if name == "__pycache__"])
    return folder


def version(folder: Path) -> str:
    code_version.cache_clear()
    return code_version(folder)


def test_the_same_sources_have_one_version_wherever_they_lie(copied: Path) -> None:
    assert version(copied) == version(BACKENDS) == code_version()


@pytest.mark.parametrize("name", sorted(path.parent.name for path in BACKENDS.rglob("__init__.py")))
def test_an_edit_in_any_folder_is_noticed(name: str, copied: Path) -> None:
    before = version(copied)
    (edited,) = [path for path in copied.rglob("__init__.py") if path.parent.name == name]
    text = edited.read_bytes()
    edited.write_bytes(text + b"#")
    try:
        assert version(copied) != before
    finally:
        edited.write_bytes(text)


def test_a_source_that_moves_is_noticed(copied: Path) -> None:
    before, home = version(copied), copied / "measure.py"
    home.rename(copied / "graph" / "measure.py")
    try:
        assert version(copied) != before
    finally:
        (copied / "graph" / "measure.py").rename(home)
