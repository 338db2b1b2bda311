"""`reconvene shrink`: a smaller network with its history, goes on after a kill, and what makes no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reconvene.driver.cli.command_line import main
from reconvene.driver.shrinking.course import settings_of, shrinking_presets
from reconvene.driver.shrinking.steps import open_steps
from reconvene.driver.training.presets import find_preset
from reconvene.frontend.program_file import load_program, read_program
from tests.driver.training.test_loop import killed_at
from tests.driver.verbs.test_train import answered, folder

__all__ = ["folder"]

NET_CODE = """
from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 1, 1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )
"""
LINE = [
    "shrink", "net.py:net", "--input", "2x3x32x32", "--data", "data", "--preset", "rl-pruner-smoke", "--threads", "1",
    "--sparsity", "0.4", "--set", "step=0.2", "--set", "train_images=0", "--set", "test_images=0", "--set", "batch=8",
    "--set", "candidate_images=0", "--set", "images=10",
]  # fmt: skip


@pytest.fixture(autouse=True)
def net(folder: Path) -> None:
    (folder / "net.py").write_text(NET_CODE)


def test_a_smaller_network_with_its_history(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = answered(capsys, *LINE, "--reward", "latency", "--target", "rpi4", "-o", "run")
    assert [row["filters"] for row in done["steps"]] == [20, 16, 12] and done["steps"][-1]["latency"] < 1
    assert done["settings"]["reward"] == {"macs": 0.0, "parameters": 0.0, "latency": 0.25}
    stored = read_program("run/model.pt2")
    assert stored.module.get_parameter("0.weight").shape[0] + stored.module.get_parameter("3.weight").shape[0] == 12
    assert stored.origin is not None and stored.origin["steps"] == done["steps"]
    assert stored.origin["course"]["rule"] == "rl-pruner" and stored.origin["target"] == "rpi4"
    assert stored.compute is not None and stored.compute.dense_macs == done["steps"][0]["macs"] > stored.compute.macs
    assert 0 <= done["after"] <= 1 and done["metric"] == "accuracy"
    assert set(done["files"].values()) == {"run/model.pt2", "run/log.csv", "run/log.json", "run/steps.html"}
    assert all((folder / name).is_file() for name in done["files"].values())
    history = json.loads((folder / "run" / "log.json").read_text())
    assert history["settings"]["course"]["sparsity"] == 0.4 and len(history["steps"]) == 3
    # The file is one like any other: it is trained further, and pruned.
    assert main(["prune", "run/model.pt2", "-s", "0.5", "-o", "tiny.pt2"]) == 0


def test_it_goes_on_after_a_kill(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answered(capsys, *LINE, "-o", "whole")
    with killed_at(6, monkeypatch):
        main([*LINE, "-o", "run"])
    capsys.readouterr()
    again = answered(capsys, *LINE, "-o", "run")
    assert [row["after"] for row in again["steps"]] == [row["after"] for row in whole["steps"]]
    states = [load_program(folder / name / "model.pt2")[0].state_dict() for name in ("whole", "run")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_it_tells_a_person(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINE, "--rule", "uniform", "-o", "run"]) == 0
    told = capsys.readouterr().out
    assert "filters" in told and "trained" in told and "test accuracy" in told and "steps.html" in told
    assert "latency" not in told
    assert [step.filters for step in open_steps(folder / "run")] == [20, 16, 12]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reward", "latency"], "name it, such as --target rpi4"),
        (["--rule", "knapsack"], "name it, such as --target rpi4"),
        (["--rule", "best"], "no rule 'best'; choose one of rl-pruner"),
        (["--reward", "speed"], "no reward 'speed'; choose one of accuracy, macs"),
        (["--rule", "uniform", "--reward", "macs"], "--reward has no meaning for the rule uniform"),
        (["--target", "rpi9"], "rpi9"),
        (["--sparsity", "1.5"], "sparsity 1.5 is not a share"),
        (["--set", "sparsity=0.5"], "--set sparsity says what --sparsity is for"),
        (["--set", "speed=1"], "there is no setting 'speed'"),
        (["--preset", "none"], "no training preset is called 'none'"),
        (["--ignore", "conv9"], "the pattern 'conv9' matches no layer"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*LINE, "-o", "run", *options]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (folder / "run" / "model.pt2").exists()


def test_train_says_where_such_methods_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "net.py:net", "--input", "2x3x32x32", "--data", "data", "--method", "rl-pruner"]) == 2
    assert "run 'reconvene shrink'" in capsys.readouterr().err


def test_presets_are_the_authors_schedule_and_shorter_ones() -> None:
    assert list(shrinking_presets()) == ["rl-pruner-laptop", "rl-pruner-smoke"]
    theirs = settings_of("rl-pruner")
    assert theirs.course.steps == 60 and theirs.preset.epochs == 20 and theirs.preset.batch == 256
    assert (theirs.search.rounds, theirs.search.samples, theirs.search.noise, theirs.course.step) == (
        10,
        10,
        0.04,
        0.01,
    )
    assert (theirs.preset.temperature, theirs.preset.teacher_share, theirs.preset.rate) == (2.0, 0.75, 1e-3)
    laptop = settings_of("rl-pruner-laptop", "macs", {"epochs": "2"})
    assert laptop.course.step == 0.05 and laptop.preset.epochs == 2 and laptop.reward.macs == 0.25
    assert settings_of("laptop").preset == find_preset("laptop")
    # What the file says of how much shorter it is.
    filters_ratio = laptop.course.step / theirs.course.step
    assert filters_ratio * 20 * 50_000 / settings_of("rl-pruner-laptop").preset.train_images == 500
    scored = laptop.search.rounds * laptop.search.samples * laptop.course.candidate_images
    assert round(filters_ratio * 100 * 10_000 / scored, -1) == 420
