"""The cache folder from the command line: what is in it, and emptying it by kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconvene.driver.cli.command_line import main
from reconvene.driver.verbs.cache import KINDS, kept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(folder: Path) -> None:
    for name in ("libraries/a.zip", "libraries/b.zip", "choices-1.json", "runtime-1/vm.o", "runtime-1/ffi.o", "x.npz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(100))
    (folder / "mine.txt").write_text("keep me")


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["cache", "--json", *arguments]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_what_is_in_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [(entry.kind, entry.entries, entry.bytes) for entry in kept()] == [(kind, 0, 0) for kind in KINDS]
    fill(folder)
    answer = asked(capsys)
    assert answer["folder"] == str(folder)
    found = {entry["kind"]: (entry["entries"], entry["bytes"]) for entry in answer["kinds"]}
    filled = {"libraries": (2, 200), "choices": (1, 100), "runtimes": (1, 200), "data": (1, 100)}
    assert found == {kind: filled.get(kind, (0, 0)) for kind in KINDS}
    assert main(["cache"]) == 0
    out = capsys.readouterr().out
    assert "libraries" in out and str(folder) in out


def test_emptying(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(folder)
    answer = asked(capsys, "--clear", "libraries", "--clear", "runtimes")
    assert {entry["kind"] for entry in answer["kinds"] if entry["entries"]} == {"choices", "data"}
    asked(capsys, "--clear", "all")
    assert not any(entry.entries for entry in kept())
    assert (folder / "mine.txt").read_text() == "keep me"
