"""`reconvene train --compute equal`: what it compares with, and what it says where it cannot know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_kills import write_images

from reconvene.driver.cli.command_line import main
from reconvene.frontend.program_file import read_program
from reconvene.frontend.stored_compute import Compute

QUARTER = ["resnet20", "--width", "0.25"]


def short(epochs: int = 1) -> list[str]:
    """Options of a training of seconds."""
    settings = ("train_images=0", "test_images=0", "batch=16", f"epochs={epochs}")
    changes = [word for setting in settings for word in ("--set", setting)]
    return ["--data", "data", "--preset", "smoke", "--threads", "1", *changes]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data", count=8)
    return tmp_path


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_pruned_file_says_what_the_dense_network_computes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["prune", *QUARTER, "--dataset", "cifar10", "-s", "0.5", "-o", "small.pt2"]
    made = answered(capsys, *line)["report"]
    dense, small = made["before"]["macs"], made["after"]["macs"]
    assert read_program("small.pt2").compute == Compute(dense, small) and dense > 2 * small
    done = answered(capsys, "train", "small.pt2", *short(), "--compute", "equal", "-o", "run")
    assert done["compute"] == "equal" and done["settings"]["epochs"] == 2 == len(done["rows"])
    # What is made of a small network still has the dense one to be compared with, and so has the trained one.
    assert read_program("run/model.pt2").compute == Compute(dense, small)
    again = answered(capsys, "prune", "run/model.pt2", "-s", "0.5", "-o", "tiny.pt2")["report"]
    assert read_program("tiny.pt2").compute == Compute(dense, again["after"]["macs"])


def test_a_number_that_is_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A quarter of ResNet-20 computes 2,633,888 multiply-accumulates on an image, on which it is captured."""
    for macs, epochs in ((2_633_888 * 3 // 2, 3), (2_633_888 * 3 // 2 - 1, 2)):
        options = ["--compute", "equal", "--dense-macs", str(macs), "-o", f"run{epochs}"]
        assert answered(capsys, "train", *QUARTER, *short(2), *options)["settings"]["epochs"] == epochs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compute", "equal"], "--dense-macs"),
        (["--compute", "most"], "no compute 'most'; choose epochs or equal"),
        (["--dense-macs", "5"], "--dense-macs has no meaning without --compute equal"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *QUARTER, *short(), *options]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (folder / "resnet20-training").exists()
