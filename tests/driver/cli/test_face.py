"""``import reconvene`` and ``--help`` are quick, and every public name is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import reconvene


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_import_and_help_load_neither_torch_nor_tvm(tmp_path: Path) -> None:
    code = (
        "import sys, reconvene; from reconvene.driver.cli.command_line import main; code = main(['--help']);"
        " print(code, sorted({'torch', 'tvm', 'plotly'} & set(sys.modules)))"
    )
    done = python(code, tmp_path)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "prune" in done.stdout


def test_module_runs_from_any_folder(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "reconvene", "prune", "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--sparsity" in done.stdout


@pytest.mark.parametrize("name", reconvene.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(reconvene, name) is not None
    assert name in dir(reconvene)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        reconvene.nothing  # noqa: B018
