"""`reconvene explore`: one line from a network to its front, goes on after a kill, and what makes no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconvene.driver.cli.command_line import main
from reconvene.driver.exploring.record import Variant
from reconvene.driver.exploring.telling import Teller
from tests.driver.exploring.test_explore import uncompiled
from tests.driver.training.test_loop import killed_at
from tests.driver.verbs.test_train import answered, folder

__all__ = ["folder"]

NET_CODE = """
from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""
LINE = [
    "explore", "net.py:net", "--input", "2x3x32x32", "--data", "data", "--preset", "smoke", "--threads", "1",
    "--target", "rpi4", "--told-by", "model", "--budget", "0.7,0.01", "--set", "train_images=0", "--set", "test_images=0",
    "--set", "batch=8", "--set", "epochs=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def net(folder: Path) -> None:
    (folder / "net.py").write_text(NET_CODE)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Teller, "compiled", uncompiled)


def test_a_front_with_a_bundle_for_each_network(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With compiled code."""
    done = answered(capsys, *LINE, "--variant", "row-block:4", "-o", "run")
    assert [one["name"] for one in done["variants"]] == ["dense", "row-block-4-0.7"]
    assert [(one["kind"], one["budget"]) for one in done["refusals"]] == [("row-block:4", 0.01)]
    assert (done["target"], done["told_by"], done["unit"], done["metric"]) == ("rpi4", "model", "cycles", "accuracy")
    whole, sparse = done["variants"]
    assert sparse["time"] <= 0.7 * whole["time"] and sparse["bytes"] < whole["bytes"]
    assert sparse["time"] / whole["time"] == pytest.approx(sparse["reached"])
    assert done["files"] == {"page": "run/front.html", "front": "run/front.json"}
    said = json.loads((folder / "run" / "front.json").read_text())
    assert said["variants"] == done["variants"] and said["settings"]["method"]["name"] == "one-shot"
    for variant in done["variants"]:
        assert (folder / "run" / variant["name"] / "bundle" / "run").is_file()
    assert main(["evaluate", "run/row-block-4-0.7/model.pt2", "--data", "data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("quick")
def test_it_goes_on_after_a_kill(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [*LINE, "--variant", "row-block:4", "--variant", "mapped"]
    whole = answered(capsys, *line, "-o", "whole")
    with killed_at(2, monkeypatch):
        main([*line, "-o", "run"])
    capsys.readouterr()
    assert answered(capsys, *line, "-o", "run")["variants"] == whole["variants"]


@pytest.mark.usefixtures("quick")
def test_what_it_tells_a_person(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = ["--preset", "admm-laptop", "--variant", "row-block:4", "--set", "every=1", "-o", "run"]
    assert main([*LINE, *preset]) == 0
    told = capsys.readouterr().out
    assert "row-block:4" in told and "0.7" in told and "front" in told and "modelled by the formula" in told
    assert "not reached: row-block:4 at 0.01: latency 0.01 cannot be reached" in told and "front.html" in told
    said = json.loads((folder / "run" / "front.json").read_text())
    assert said["settings"]["method"]["name"] == "admm" and said["settings"]["preset"]["rate"] == 0.02
    log = json.loads((folder / "run" / "row-block-4-0.7" / "training" / "log.json").read_text())
    assert log["settings"]["method"]["name"] == "admm"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "0.5,0.5"], "budget 0.5 is there twice"),
        (["--budget", "1.5"], "budget 1.5 is out of range"),
        (["--budget", "half"], "'half' is no list of budgets"),
        (["--target", "rpi9"], "rpi9"),
        (["--variant", "best"], "there is no variant 'best'"),
        (["--variant", "row-block:4", "--beta", "0.1"], "--beta has no meaning without --variant mapped"),
        (["--variant", "row-block:7"], "no layer of this model takes a structure"),
        (["--difficulty", "odd"], "not 'odd'"),
        (["--shrinking", "rl-pruner"], "--shrinking has no meaning without --variant channels:rl-pruner"),
        (["--variant", "channels:rl-pruner", "--shrinking", "none"], "no training preset is called 'none'"),
        (["--method", "best"], "no method 'best'"),
        (["--told-by", "time"], "'rpi4' is another machine than this"),
        (["--on", "qemu"], "'qemu' is no place"),
        (["--key-file", "key"], "--key-file has no meaning without a board"),
        (["--set", "speed=1"], "neither a training nor the method one-shot has a setting 'speed'"),
        (["--data", "nowhere"], "nowhere"),
        (["--ignore", "conv9"], "conv9"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_mistakes_are_one_line(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*LINE, "-o", "run", *options]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (folder / "run" / "front.json").exists()


@pytest.mark.usefixtures("quick")
def test_a_folder_of_another_exploration_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*LINE, "--variant", "row-block:4", "-o", "run"]
    assert main(line) == 0
    before = (folder / "run" / "front.json").read_text()
    assert main([*line, "--seed", "1"]) == 2
    assert "holds an exploration of another model" in capsys.readouterr().err
    assert (folder / "run" / "front.json").read_text() == before


def test_figures_that_are_none_are_no_variant() -> None:
    good: dict[str, Any] = {
        "name": "dense", "kind": "dense", "budget": None, "reached": 1.0, "accuracy": 0.5, "time": None, "macs": 1,
        "needed_macs": 1, "parameters": 1, "bytes": 1, "zeros": 0.0, "told": "",
    }  # fmt: skip
    assert Variant.from_plain(good).accuracy == 0.5
    for wrong in ({"macs": -1}, {"macs": True}, {"accuracy": "high"}, {"name": 1}, {"time": [1]}):
        with pytest.raises(ValueError):
            Variant.from_plain({**good, **wrong})
