"""`reconvene times` and `map`: what layers take with zeros, which structures they are to have, and refusals in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconvene.driver.cli.command_line import main
from reconvene.passes.pruning.structure_plan import StructurePlan

from .test_command_line import MODEL, answered, folder, refused

__all__ = ["folder"]

RPI4 = ["--target", "rpi4"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_layers_by_structures_and_shares(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["times", *MODEL, *RPI4, "--structure", "row-block:4", "--structure", "2:4", "--shares", "0.5,0.9"]
    found = answered(capsys, *asked)
    assert (found["unit"], found["by"], found["target"]) == ("cycles", "model", "rpi4")
    layers = {layer["names"][0]: layer for layer in found["layers"]}
    assert list(layers) == ["a.weight", "b.weight", "fc.weight"] and layers["b.weight"]["layer"] == ["8x16x3x3 to 6x6"]
    blocks, pairs = layers["b.weight"]["structures"]
    assert [time["share"] for time in blocks["times"]] == [0.5, 0.9] and blocks["reason"] == ""
    assert blocks["times"][1]["time"] < blocks["times"][0]["time"] <= layers["b.weight"]["dense"]["time"]
    assert blocks["times"][1]["kernel"] in ("gather", "rows") and blocks["times"][1]["planes"] in (True, False)
    assert [time["share"] for time in pairs["times"]] == [0.5]
    assert layers["fc.weight"]["structures"][0] == {
        "structure": "row-block:4", "reason": "its 5 filters are no multiple of 4", "times": [],
    }  # fmt: skip
    assert answered(capsys, *asked) == found and len(list(cache.glob("layer-times-*"))) == 1


def test_for_a_person(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["times", *MODEL, *RPI4, "--structure", "row-block:4", "--shares", "0.8"]) == 0
    out = capsys.readouterr().out
    assert "Time by share of zeros, in cycles" in out and "8x16x3x3 to 6x6" in out and "row-block:4" in out
    assert "no row-block:4 in fc: its 5 filters are no multiple of 4" in out
    assert main(["times", *MODEL, *RPI4]) == 0
    assert "dense" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--structure", "moss"], "there is no structure 'moss'"),
        (
            ["--structure", "row-block:4@0.8"],
            "'row-block:4@0.8' says a share, and times are told of several; leave @0.8 out",
        ),
        (["--shares", "0.5 0.7"], "'0.5 0.7' are no shares; write numbers with commas"),
        (["--shares", ""], "'' are no shares"),
        (["--shares", "1"], "sparsity 1.0 is outside 0..1"),
        (["--shares", "nan"], "sparsity nan is outside 0..1"),
        (["--by", "moon"], "times are told by model, cycles, time, not by 'moon'"),
        (["--by", "time"], "kernels for 'rpi4' do not run on this machine"),
        (["--on", "rpc://a:1"], "--on has no meaning without --by time"),
        (["--by", "time", "--on", "moon"], "'moon' is no place"),
        (["--key-file", "k"], "--key-file has no meaning without a board on the network"),
        (["--target", "rpi9"], "rpi9"),
    ],
)
def test_what_cannot_be_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "times", *MODEL, *RPI4, *options)


def test_a_plan_is_written_and_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answered(capsys, "map", *MODEL, *RPI4, "--data", "easy", "-s", "0.75", "-o", "plan.json")
    layers = {layer["name"]: layer for layer in found["plan"]["layers"]}
    assert list(layers) == ["a.weight", "b.weight", "fc.weight"] and found["files"] == {"plan": "plan.json"}
    assert layers["b.weight"]["share"] == 0.75 and layers["b.weight"]["sparse"] < layers["b.weight"]["dense"]
    assert StructurePlan.load("plan.json").to_json() == (folder / "plan.json").read_text()
    report = answered(capsys, "prune", *MODEL, "--structure", "plan.json")["report"]
    asked = {layer["name"]: layer["asked"] for layer in report["zeros"]}
    assert asked["b.weight"] == f"{layers['b.weight']['structure']}@0.75"
    assert main(["map", *MODEL, *RPI4]) == 0
    out = capsys.readouterr().out
    assert "Structures by layer" in out and "all layers" in out and "pattern:8" in out
    assert "net-structures.json" in out and (folder / "net-structures.json").is_file()


SHORT = ["--set", "rounds=1", "--set", "samples=2", "--set", "choices=2"]


def test_a_plan_by_search(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["map", *MODEL, *RPI4, "--budget", "0.9", "--calibration", "noise", *SHORT, "-o", "plan.json"]
    found = answered(capsys, *asked)["plan"]
    dense, sparse = (sum(layer[name] for layer in found["layers"]) for name in ("dense", "sparse"))
    assert sparse <= 0.9 * dense
    assert (found["asked"]["method"], found["asked"]["budget"]) == ("search", 0.9)
    assert answered(capsys, *asked)["plan"] == found
    structure = next(layer for layer in found["layers"] if layer["structure"])
    report = answered(capsys, "prune", *MODEL, "--structure", "plan.json")["report"]
    zeros = {layer["name"]: layer["asked"] for layer in report["zeros"]}
    assert zeros[structure["name"]].startswith(structure["structure"])
    monkeypatch.setenv("COLUMNS", "160")
    assert main(asked) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "of the dense time, 0.9 was asked for; nearness of outputs" in out and "networks were tried" in out


def test_a_search_by_accuracy_on_images_held_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["map", "net.py:net", "--input", "1x3x16x16", *RPI4, "--budget", "0.9", "--dataset", "digits", *SHORT]
    plan = answered(capsys, *asked)["plan"]
    # A tenth of the 1,297 images to train on.
    assert plan["asked"]["on"] == "130 images held out of training" and plan["asked"]["quality"] == "accuracy"
    assert 0 <= plan["asked"]["begun at"] <= plan["asked"]["found"] <= 1
    # Images are of 16 x 16.
    refusal = refused(capsys, *asked[:3], "1x3x8x8", *asked[4:])
    assert "do not fit the model" in refusal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "0"], "budget 0.0 is no share of the dense time above 0 and up to 1"),
        (["--budget", "0.01", "--calibration", "noise"], "cannot be reached: with every layer at its fastest it is"),
        (["--budget", "0.9", "-s", "0.7"], "sparsity is for the rules, and a search decides by itself"),
        (["--budget", "0.9", "--set", "moss=1"], "a search has no setting 'moss'"),
        (["--budget", "0.9", "--set", "choices=one"], "choices"),
        (["--budget", "0.9", "--calibration", "none.npy"], "no calibration inputs"),
        (
            ["--budget", "0.9", "--calibration", "noise", "--dataset", "digits"],
            "--calibration has no meaning beside images",
        ),
        (["--budget", "0.9", "--dataset", "moss"], "moss"),
        (["--calibration", "noise"], "--calibration is for a search; say --budget as well"),
        (["--dataset", "digits"], "--dataset is for a search"),
        (["--training-data", "images"], "--training-data is for a search"),
        (["--set", "rounds=1"], "--set is for a search"),
    ],
)
def test_searches_that_cannot_be_made(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "map", *MODEL, *RPI4, *options)
    assert not list(folder.glob("*.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-s", "0"], "with a sparsity of 0 nothing takes a structure"),
        (["-s", "1.2"], "sparsity 1.2 is outside 0..1"),
        (["--beta", "-1"], "beta -1.0 is no share from 0 up"),
        (["--data", "cifar10"], "data are hard or easy, not 'cifar10'"),
        (["--ignore", "z*"], "the pattern 'z*' matches no layer"),
        (["-o", "no/plan.json"], "there is no folder 'no'"),
        (["-o", "net.py"], "'net.py' is the model itself"),
        (["--on", "rpc://a:1"], "--on has no meaning without --by time"),
    ],
)
def test_plans_that_cannot_be_made(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["net.py"] if options[1] == "net.py" else MODEL
    assert message in refused(capsys, "map", *model, *RPI4, *options)
    assert not list(folder.glob("*.json"))


def test_a_model_without_kernels_of_known_time_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "solid.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Conv3d(4, 4, 3)\n")
    model = [f"{tmp_path / 'solid.py'}:net", "--input", "1x4x8x8x8"]
    for verb in ("times", "map"):
        assert "no layer of this model has a known time" in refused(capsys, verb, *model, *RPI4)
