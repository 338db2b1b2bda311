"""A training that is killed, really, ends with the same weights; and the command line trains."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from training_kills import command, killed_training, same_state, write_images

from reconvene.driver.cli.command_line import main


def test_a_training_killed_three_times_ends_as_one_that_was_not(tmp_path: Path) -> None:
    write_images(tmp_path / "data", count=32)
    subprocess.run(command(tmp_path / "data", tmp_path / "whole", 3), check=True, capture_output=True)
    outcome = killed_training(
        command(tmp_path / "data", tmp_path / "killed", 3), tmp_path / "killed", 3, seed=1, most=3
    )
    assert outcome.kills == 3
    assert same_state(tmp_path / "whole", tmp_path / "killed")
    rows = [json.loads((tmp_path / name / "log.json").read_text())["rows"] for name in ("whole", "killed")]
    assert [row["test_loss"] for row in rows[0]] == [row["test_loss"] for row in rows[1]]
    assert not list((tmp_path / "killed").glob(".checkpoint*"))


def test_the_command_line_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data", count=16)
    line = command(tmp_path / "data", tmp_path / "run", 1)[3:]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 1 and Path(found["files"]["model"]).is_file()
    again = ["train", found["files"]["model"], "--data", str(tmp_path / "data"), "--preset", "smoke"]
    again += ["--set", "train_images=0", "--set", "test_images=0", "--set", "epochs=1", "-o", str(tmp_path / "more")]
    assert main(again) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "quick"], "no training preset"),
        (["--set", "epochs=none"], "whole number"),
        (["--device", "tpu"], "no device"),
        (["--data", "nowhere"], "no folder 'nowhere'"),
        (["--dataset", "cifar10", "--data", "nowhere"], "no CIFAR-10"),
        (["--dataset", "svhn"], "no data set"),
        (["--masks", "nowhere.safetensors"], "no such file"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "resnet20", "--width", "0.25", *options]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
