"""What pyproject.toml packs: every package, every file beside code that code reads, and the licences."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = ("reconvene", "frontend", "passes", "backends", "driver")


def packages() -> dict[Path, str]:
    """The name of each folder with code that is imported."""
    folders = [path.parent.relative_to(TOP) for name in FOLDERS for path in (TOP / name).rglob("__init__.py")]
    return {
        folder: ".".join(folder.parts if folder.parts[0] == "reconvene" else ("reconvene", *folder.parts))
        for folder in folders
    }


PACKAGES = packages()


def test_every_package_is_listed_and_lies_where_it_is_said_to() -> None:
    assert set(SETUPTOOLS["packages"]) == set(PACKAGES.values())
    # What lies within one of them follows from it.
    tops = {folder: name for folder, name in PACKAGES.items() if len(folder.parts) == 1}
    assert SETUPTOOLS["package-dir"] == {name: str(folder) for folder, name in tops.items()}


def test_every_file_beside_code_is_packed() -> None:
    for folder in FOLDERS:
        for path in (TOP / folder).rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc") or "__pycache__" in path.parts:
                continue
            home = next(parent for parent in path.parents if (parent / "__init__.py").is_file())
            name = str(path.relative_to(home))
            patterns = SETUPTOOLS["package-data"].get(PACKAGES[home.relative_to(TOP)], [])
            assert any(fnmatch(name, pattern) for pattern in patterns), path


def test_the_licence_is_named_and_its_files_are_there() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert all((TOP / name).is_file() for name in PROJECT["project"]["license-files"])
    assert "Apache License" in (TOP / "LICENSE").read_text(encoding="utf-8")
