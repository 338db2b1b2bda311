"""RECONVENE_DUMP: every stage's text in a numbered file, one line where that cannot be, and nothing without it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.graph.nodes import Graph
from reconvene.backends.graph.text import graph_text
from reconvene.frontend.base.dump import on_trial, reached, watching
from reconvene.frontend.base.errors import InputError

STAGES = ["captured", "canonical", "masked", "compacted", "read", "folded", "fused", "planned"]
EMPTY = Graph([], [], [], True)
INPUT = (torch.zeros(1, 3, 4, 4),)


def compacted_and_compiled() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    mask = torch.ones(8, dtype=torch.bool)
    mask[:3] = False
    found = reconvene.compact(reconvene.capture(model, INPUT), INPUT, {"0.weight": mask, "0.bias": mask})
    reconvene.compile(found.module, INPUT, choose="default", check=False)


def test_every_stage_is_a_file_and_a_difference_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "dump"
    monkeypatch.setenv("RECONVENE_DUMP", str(folder))
    compacted_and_compiled()
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == [f"{number:04}-{stage}.txt" for number, stage in enumerate(STAGES, 1)]
    texts = dict(zip(STAGES, (path.read_text(encoding="utf-8").splitlines() for path in files), strict=True))
    changed = [line for line in texts["masked"] if line not in texts["canonical"]]
    assert changed == ["_0_weight = 0.weight 8x3x1x1 float32, 9 zeros", "_0_bias = 0.bias 8 float32, 3 zeros"]
    assert "_0_weight = 0.weight 5x3x1x1 float32" in texts["compacted"]
    assert "add = add(convolution, constant) 1x5x4x4 float32" in texts["read"]
    assert "convolution = convolution(input) 1x5x4x4 float32, kernel 5x3x1x1, bias" in texts["folded"]
    assert [line for line in texts["fused"] if line not in texts["folded"]] == [
        "    relu = relu(convolution) 1x5x4x4 float32"
    ]
    assert [line.partition(" = ")[2].partition("(")[0] for line in texts["planned"][2:-1]] == [
        "pack", "convolution", "convolution", "unpack",
    ]  # fmt: skip


def test_files_are_only_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_DUMP", str(tmp_path))
    (tmp_path / "0041-read.txt").write_text("mine")
    (tmp_path / "99-notes.txt").write_text("mine")
    for text in ("one", "two"):
        reached("read", EMPTY, lambda _, text=text: text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "0041-read.txt": "mine", "99-notes.txt": "mine", "0042-read.txt": "one\n", "0043-read.txt": "two\n",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["file", "file/below", "nul\0"])
def test_a_folder_that_cannot_be_written_is_one_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "environ", {**os.environ, "RECONVENE_DUMP": str(tmp_path / place)})
    with pytest.raises(
        InputError, match=r"^cannot write the stage 'captured' into .*: .*; let RECONVENE_DUMP name"
    ) as caught:
        compacted_and_compiled()
    assert "\n" not in str(caught.value)


def test_without_the_variable_no_text_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (None, ""):
        monkeypatch.delenv("RECONVENE_DUMP", raising=False)
        if value is not None:
            monkeypatch.setenv("RECONVENE_DUMP", value)
        reached("read", EMPTY, lambda _: pytest.fail("a text was made"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_tried_and_thrown_away_leaves_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_DUMP", str(tmp_path))
    with on_trial():
        reached("read", EMPTY, graph_text)
    assert list(tmp_path.iterdir()) == []
    reached("read", EMPTY, graph_text)
    assert [path.name for path in tmp_path.iterdir()] == ["0001-read.txt"]


def test_who_watches_sees_stages_in_order() -> None:
    seen: list[str] = []
    with watching(lambda stage, _: seen.append(stage)):
        compacted_and_compiled()
    reached("read", EMPTY, graph_text)
    assert seen == [stage for stage in STAGES if stage != "canonical"], "the canonical form is made for texts alone"


def test_the_table_of_what_is_legal_has_every_stage() -> None:
    page = (Path(__file__).parents[2] / "docs" / "design.md").read_text(encoding="utf-8")
    table = page.partition("## What is legal after each stage")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `?(\w+)`? \| (?:compact|compile)", table, re.MULTILINE) == STAGES
