"""What is a person's own on the command line: weights, scores and shares of layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import reconvene
from reconvene.driver.cli.command_line import main

CODE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))

def first_dearest(name, weight):
    rank = torch.arange(len(weight), 0, -1, dtype=weight.dtype)
    return rank.reshape(-1, 1, 1, 1).expand_as(weight)

number = 7
"""
MODEL = ("net.py:net", "--input", "1x3x6x6")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(CODE)
    return tmp_path


def prune(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, Any]:
    code = main(["prune", *MODEL, "-o", "small.pt2", *line, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out)["report"] if code == 0 else said.err


def test_a_score_of_a_file_and_shares_of_layers(capsys: pytest.CaptureFixture[str]) -> None:
    line = ("--method", "net.py:first_dearest", "--layer-sparsity", "0=0.25", "--layer-sparsity", "2.*=0.5")
    code, report = prune(capsys, *line)
    assert code == 0
    assert [layer["channels_after"] for layer in report["layers"]] == [6, 3, 4]
    assert report["options"]["score"] == "first_dearest"
    assert report["options"]["layer_sparsity"] == {"0": 0.25, "2.*": 0.5}


def test_weights_are_those_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", *MODEL, "--seed", "7", "-o", "trained.pt2"]) == 0
    trained = reconvene.load("trained.pt2").module
    torch.save({"state_dict": {f"module.{name}": value for name, value in trained.state_dict().items()}}, "net.pth")
    assert main(["capture", *MODEL, "--weights", "net.pth", "-o", "again.pt2"]) == 0
    again = reconvene.load("again.pt2").module.state_dict()
    assert all(torch.equal(again[name], value) for name, value in trained.state_dict().items())
    torch.save({"0.weight": torch.zeros(8, 3, 1, 1)}, "net.pth")
    code, said = prune(capsys, "--weights", "net.pth")
    assert code == 2 and "are not those of Sequential: 5 missing: 0.bias, 2.weight, 2.bias ...;" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--method", "net.py:number"], "is a int, no function that scores weights"),
        (["--method", "net.py:nothing"], "has no 'nothing'; name a function that scores weights"),
        (["--weights="], "--weights names no file"),
        (["--layer-sparsity", "0"], "'0' is no share of layers; write PATTERN=SHARE"),
        (["--layer-sparsity", "0=1.5"], "'0=1.5' is no share of layers"),
        (["--layer-sparsity", "0=.5", "--layer-sparsity", "0=.6"], "two shares were given for '0'"),
        (["--layer-sparsity", "0=0.5", "-s", "0.5"], "--sparsity has no meaning with --layer-sparsity"),
        (["--layer-sparsity", "9=0.5"], "the pattern '9' matches no layer"),
        (["--weights", "none.pth"], "no such file: 'none.pth'"),
    ],
)
def test_what_makes_no_sense_is_one_line(line: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = prune(capsys, *line)
    assert code == 2 and message in said and len(said.splitlines()) == 1


def test_weights_have_no_meaning_for_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.pt2", "net.pth"):
        (place / name).touch()
    (place / "bundle").mkdir()
    assert main(["prune", "a.pt2", "--weights", "net.pth"]) == main(["run", "bundle", "--weights", "net.pth"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "--weights has no meaning for 'a.pt2', which has its weights" in told[0]
    assert "--weights has no meaning for a bundle" in told[1]


def test_a_share_of_the_last_layer_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", *MODEL, "-o", "small.pt2", "--layer-sparsity", "4=0.5", "--layer-sparsity", "0=0.5"]) == 0
    assert "'4' loses no channels: the model's output keeps its shape" in capsys.readouterr().out
