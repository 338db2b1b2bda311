"""Commands that install what an extra needs name packages that any index has."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from reconvene.frontend.base.extras import install_command

ROOT = Path(__file__).resolve().parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_is_had_without_this_package_in_an_index(extra: str) -> None:
    command = install_command(extra)
    names = re.findall(r"'([A-Za-z0-9_.-]+)", command)
    own = [re.match(r"[A-Za-z0-9_.-]+", one)[0] for one in EXTRAS[extra]]  # type: ignore[index]
    assert command.startswith("pip install '") and "reconvene" not in names
    assert {name for name in own if name != "reconvene"} <= set(names)


def test_extras_of_extras_are_spelled_out() -> None:
    assert "'onnxscript" in install_command("benchmarks") and "'matplotlib" in install_command("benchmarks")


def test_an_extra_that_is_none_is_misuse() -> None:
    with pytest.raises(ValueError, match="no extra 'tpu'"):
        install_command("tpu")


def test_code_that_was_never_installed_names_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert install_command("serve") == "pip install '.[serve]'"


def test_no_page_and_no_message_takes_this_package_from_an_index() -> None:
    folders = ("passes", "frontend", "backends", "driver", "benchmarks", "docs")
    files = [path for folder in folders for ending in ("py", "md") for path in (ROOT / folder).rglob(f"*.{ending}")]
    told = [
        path for path in [*files, ROOT / "README.md"] if re.search(r"pip install ['\"]?reconvene", path.read_text())
    ]
    assert len(files) > 300 and told == []
