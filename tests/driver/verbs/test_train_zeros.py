"""`reconvene train --method`: zeros of a structure, masks for another training, channels that go, and what makes no sense."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reconvene.driver.cli.command_line import main
from reconvene.driver.training.presets import Preset, find_preset, presets, tables
from reconvene.driver.training.recipes import preset_method
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.program_file import load_program
from reconvene.passes.pruning.methods import methods_of
from reconvene.passes.pruning.methods.admm import Admm
from reconvene.passes.pruning.methods.base import TrainingMethod
from reconvene.passes.pruning.structure_plan import PlannedLayer, StructurePlan
from reconvene.passes.structures import find_structure
from tests.driver.verbs.test_train import answered, folder, short

__all__ = ["folder"]

NET = ["net.py:net", "--input", "2x3x32x32"]


NET_CODE = """
from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""
"""A network of three convolutions, which reads images at half their size."""


@pytest.fixture(autouse=True)
def net(folder: Path) -> None:
    (folder / "net.py").write_text(NET_CODE)


def test_zeros_of_a_structure_and_masks_to_keep_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", *NET, *short(2), "--set", "rho=0.1", "--set", "retrain=0.25", "-o", "run"]
    done = answered(capsys, *line, "--method", "admm", "--structure", "row-block:4", "-s", "0.75", "--ignore", "6")
    assert done["method"]["rho"] == [0.1] and done["method"]["structure"] == "row-block:4"
    assert done["settings"]["epochs"] == 2 and done["rows"][-1]["residual"] == 0 and done["rows"][0]["rho"] == 0.1
    module, _ = load_program(folder / "run" / "model.pt2")
    masks = load_file(folder / "run" / "masks.safetensors")
    zeros = {layer["name"]: layer for layer in done["zeros"]}
    assert set(masks) == {"3.weight"}
    for name, mask in masks.items():
        weight = module.get_parameter(name).detach()
        assert torch.equal(weight != 0, mask) and not find_structure("row-block:4").broken(weight)
        assert zeros[name]["zeros"] == int((~mask).sum()) == pytest.approx(0.75 * mask.numel(), rel=0.06)
    assert any("a first convolution" in note for note in done["notes"])
    assert done["files"]["masks"] == "run/masks.safetensors"
    again = answered(capsys, "train", "run/model.pt2", *short(), "--masks", "run/masks.safetensors", "-o", "more")
    assert again["method"] is None
    module, _ = load_program(folder / "more" / "model.pt2")
    assert all(not bool(module.get_parameter(name)[~mask].any()) for name, mask in masks.items())


def test_a_plan_of_structures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = PlannedLayer("3.weight", "row-block:4", 0.75), PlannedLayer("6.weight", "2:4", 0.5)
    StructurePlan(layers).save(folder / "plan.json")
    done = answered(capsys, "train", *NET, *short(), "-m", "one-shot", "--structure", "plan.json", "-o", "run")
    assert done["method"]["structure"] == [["3.weight", "row-block:4@0.75"], ["6.weight", "2:4@0.5"]]
    shares = {layer["name"]: layer["zeros"] / layer["weights"] for layer in done["zeros"]}
    assert shares == pytest.approx({"0.weight": 0, "3.weight": 0.75, "6.weight": 0.5, "10.weight": 0}, abs=0.01)


def test_channels_are_removed_from_what_was_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *NET, *short(), "-m", "one-shot", "--structure", "channels", "-s", "0.5", "-o", "run"]) == 0
    told = capsys.readouterr().out
    assert "'reconvene compact run/model.pt2' removes them" in told
    made = answered(capsys, "compact", "run/model.pt2", "-o", "small.pt2")["report"]
    assert made["after"]["parameters"] < 0.5 * made["before"]["parameters"]
    assert made["certificate"]["max_relative"] < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--method", "magic"],
            "there is no method 'magic'; choose one of one-shot, gradual, admm, reweighted, sr-ste",
        ),
        (
            ["--method", "magnitude"],
            "the method magnitude is none that finds zeros in training; choose one of one-shot",
        ),
        (["--structure", "2:4"], "--structure has no meaning without --method; name one, or leave it out"),
        (["--sparsity", "0.5"], "--sparsity has no meaning without --method"),
        (["--method", "sr-ste", "--structure", "2:4", "-s", "0.8"], "sparsity 0.8 has no meaning with 2:4"),
        (
            ["--method", "admm", "--set", "roh=1"],
            "neither a training nor the method admm has a setting 'roh'; the method has",
        ),
        (["--method", "admm", "--set", "rho=much"], "'much' is no value of rho; write numbers with commas"),
        (["--method", "admm", "--structure", "octagon"], "there is no structure 'octagon'"),
        (
            ["--method", "admm", "--structure", "conv*=channels", "--structure", "2:4"],
            "channels are of the whole network",
        ),
        (["--method", "admm", "--structure", "dense@0.5"], "a dense layer has none"),
        (["--method", "sr-ste", "--structure", "dot:4@0.5", "-s", "0.8"], "sparsity 0.8 has no meaning with dot:4@0.5"),
        (["--method", "admm", "--structure", "fc*=2:4"], "the pattern 'fc*' matches no layer"),
        (["--method", "admm", "--masks", "m.safetensors"], "--masks has no meaning with the method admm"),
        (["--set", "rho=1"], "a training has no setting 'rho'"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *NET, *short(), *options]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (folder / "net-training").exists() or not list((folder / "net-training").iterdir())


@pytest.mark.parametrize("name", [name for name, values in tables().items() if "method" in values])
def test_presets_that_bring_a_method(name: str) -> None:
    method = preset_method(name)
    assert method is not None and method.name == tables()[name]["method"]["name"]
    if name.endswith("-laptop"):
        assert name == f"{method.name}-laptop" and find_preset(name) == find_preset("one-shot-laptop")


def test_the_papers_constants() -> None:
    patdnn, blk, ste = (preset_method(name).recorded() for name in  # type: ignore[union-attr]
                        ("patdnn-cifar10", "blk-rew-cifar10", "sr-ste-resnet50"))  # fmt: skip
    assert (patdnn["structure"], patdnn["rho"], patdnn["splits"]) == ("pattern:8", (0.01,), True)
    assert 180 * (1 - patdnn["retrain"]) == pytest.approx(120, abs=0.01) and 1 / (1 - patdnn["sparsity"]) > 8.09
    assert (blk["epsilon"], blk["refreshes"], blk["squared"]) == (1e-3, 4, False)
    assert 450 * (1 - blk["retrain"]) / (blk["refreshes"] + 1) == pytest.approx(60, abs=0.02)
    assert (ste["structure"], ste["strength"], find_preset("sr-ste-resnet50").weight_decay) == ("2:4", 2e-4, 5e-5)


def test_a_preset_without_a_method_and_one_that_is_not_there() -> None:
    assert preset_method("laptop") is None
    with pytest.raises(InputError, match="no training preset is called 'quick'"):
        preset_method("quick")


def test_no_option_of_a_method_is_a_setting_of_a_training() -> None:
    settings = {field.name for field in dataclasses.fields(Preset)}
    assert all(not settings & set(method.options()) for method in methods_of(TrainingMethod).values())
    assert len(presets()) == len(tables())


def test_the_preset_s_method_with_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line: list[Any] = ["train", *NET, *short()]
    line[line.index("smoke")] = "admm-laptop"
    done = answered(capsys, *line, "--structure", "1:4", "-o", "run")
    preset = {"rho": [1.0], "every": 0.125, "retrain": 0.875, "ignore": []}
    assert done["method"] == {**Admm(structure="1:4", sparsity=0.8).recorded(), **preset}
