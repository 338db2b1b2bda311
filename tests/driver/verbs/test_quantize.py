"""`reconvene quantize`: data, files, arrays and synthetic inputs; what is written and told; exit codes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reconvene
from reconvene.driver.cli.command_line import main
from reconvene.driver.models import load_model
from reconvene.frontend.base.extras import install_command
from reconvene.frontend.data.facts import Colours, DataFacts
from reconvene.frontend.program_file import read_program, save_program
from tests.support.pictures import write_pictures

pytest.importorskip("torchao", reason="pip install '.[int8]'")

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    ).eval()
"""
DATA = """
import torch
from torch.utils.data import TensorDataset

def images(count=40):
    x = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))
    return TensorDataset(x, (x.sum((1, 2, 3)) > 0).long())

def pair(): return images(), images(24)
"""
NAMED = ("net.py:net", "--input", "1x3x16x16")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    Path("data.py").write_text(DATA)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["quantize", *arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_function_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, *NAMED, "--data", "data.py:pair", "--images", "16", "--report", "r.json", "-o", "int8.pt2")
    report = found["report"]
    assert report["calibration"] == "16 inputs that were given" and report["evaluation"] == "24 inputs that were given"
    assert report["title"] == "net" and len(report["layers"]) == 3
    accuracy = found["accuracy"]
    assert accuracy["items"] == 24 and accuracy["metric"] == "accuracy"
    assert accuracy["agreement"] == pytest.approx(report["network"]["agreement"])
    assert accuracy["float"]["metric"] == pytest.approx(accuracy["quantized"]["metric"], abs=0.1)
    assert found["files"] == {"model": "int8.pt2", "report": "r.json"}
    assert json.loads(Path("r.json").read_text()) == report
    images = torch.randn(3, 3, 16, 16)
    assert reconvene.capture("int8.pt2")(images).shape == (3, 2)


def test_images_in_folders_with_what_the_model_says_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(Path("photos"), 12)
    loaded = load_model(*NAMED[:1], ["1x3x16x16"])
    facts = DataFacts(("ripe", "unripe"), Colours((0.5,) * 3, (0.25,) * 3), 0.25)
    save_program(loaded.module, loaded.example_inputs, "net.pt2", data=facts)
    found = told(capsys, "net.pt2", "--data", "photos")
    assert found["files"] == {"model": "net-int8.pt2"} and found["accuracy"]["items"] == 6
    assert found["report"]["calibration"] == "18 inputs that were given"
    assert read_program("net-int8.pt2").data == facts
    # The file says what images were normalised with, so that cameras' bytes will do.
    assert main(["capture", "net-int8.pt2", "--image-bytes", "NHWC", "-o", "camera.pt2"]) == 0
    image = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    numbers = (image.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    assert torch.equal(reconvene.capture("camera.pt2")(image), reconvene.capture("net-int8.pt2")(numbers))
    # And a copy still does.
    assert main(["capture", "net-int8.pt2", "-o", "copy.pt2"]) == 0
    assert read_program("copy.pt2").data == facts
    assert read_program("camera.pt2").data == replace(facts, colours=None)


@pytest.mark.parametrize("option", ["--data", "--calibration"])
def test_arrays_in_a_file(capsys: pytest.CaptureFixture[str], option: str) -> None:
    np.save("images.npy", np.random.default_rng(0).standard_normal((12, 3, 16, 16), np.float32))
    found = told(
        capsys,
        *NAMED,
        option,
        "images.npy",
        "--observer",
        "min-max",
        "--float",
        "3",
        "--correct-bias",
        "--onnx",
        "x.onnx",
    )
    assert found["files"] == {"model": "net-int8.pt2", "onnx": "x.onnx"} and Path("x.onnx").exists()
    assert found["accuracy"] is None and found["report"]["calibration"] == "12 inputs that were given"
    assert [layer["name"] for layer in found["report"]["floats"]] == ["3"] and found["report"]["corrected"] == 2


def test_synthetic_inputs_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *NAMED, "--calibration", "noise", "--images", "8", "--float-worst", "1"]) == 0
    shown = capsys.readouterr().out
    assert "ranges found on 8 synthetic inputs: noise" in shown and "2 layers in 8 bits, 1 in float" in shown
    assert "among the 1 of most noise" in shown and "wrote model net-int8.pt2" in shown


def test_a_network_by_name_is_fitted_to_its_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    line = ("resnet20", "--dataset", "digits", "--images", "8", "--test-images", "16", "--observer", "min-max")
    found = told(capsys, *line)
    assert found["accuracy"]["items"] == 16 and len(found["report"]["layers"]) == 22


WRONG = {
    "nothing": (NAMED, "ranges are found on inputs as the model was trained on: name some with --data"),
    "both": ((*NAMED, "--calibration", "noise", "--data", "x"), "--data has no meaning with --calibration"),
    "observer": ((*NAMED, "--calibration", "noise", "--observer", "best"), "there is no observer 'best'"),
    "kind": ((*NAMED, "--calibration", "photos"), "no calibration inputs: "),
    "pattern": ((*NAMED, "--calibration", "noise", "--float", "9"), "the pattern '9' matches no layer"),
    "share": ((*NAMED, "--calibration", "noise", "--test-share", "0.2"), "--test-share has no meaning without images"),
    "report": ((*NAMED, "--calibration", "noise", "--report", "r.html"), "this report is .json, not 'r.html'"),
    "onnx": (
        (*NAMED, "--calibration", "noise", "--trainable", "--onnx", "x.onnx"),
        "--onnx has no meaning with --trainable",
    ),
    "folder": ((*NAMED, "--calibration", "noise", "-o", "none/x.pt2"), "cannot write 'none/x.pt2'"),
    "model": (("nothing.pt2", "--calibration", "noise"), "no such file: 'nothing.pt2'"),
    "decibels": ((*NAMED, "--calibration", "noise", "--float-below", "nan"), "--float-below nan is no finite number"),
}


@pytest.mark.parametrize(("line", "message"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], line: tuple[str, ...], message: str
) -> None:
    before = set(Path().iterdir())
    assert main(["quantize", *line]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
    assert set(Path().iterdir()) - before <= {Path("__pycache__")}


def test_bytes_are_normalised_as_somebody_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", *NAMED, "--image-bytes", "NCHW"]) == 2
    assert (
        "error: the model does not say what its images were normalised with; give --mean and --std"
        in capsys.readouterr().err
    )
    colours = ("--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    assert main(["capture", *NAMED, *colours]) == 2
    assert "--mean has no meaning without --image-bytes" in capsys.readouterr().err
    assert main(["capture", *NAMED, "--image-bytes", "NCHW", *colours, "-o", "bytes.pt2"]) == 0
    assert read_program("bytes.pt2").example_inputs[0].dtype == torch.uint8  # type: ignore[index]


def test_bytes_of_one_channel_and_of_four(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.py").write_text(
        "from torch import nn\ndef grey(): return nn.Conv2d(1, 2, 3)\ndef four(): return nn.Conv2d(4, 2, 3)"
    )
    for name, count in (("grey", 1), ("four", 4)):
        line = [
            "capture",
            f"other.py:{name}",
            "--input",
            f"1x{count}x8x8",
            "--image-bytes",
            "NHWC",
            "-o",
            f"{name}.pt2",
        ]
        assert main([*line, "--mean", ",".join(["0.5"] * count), "--std", ",".join(["0.25"] * count)]) == 0
        image = torch.randint(0, 256, (1, 8, 8, count), dtype=torch.uint8)
        assert reconvene.capture(f"{name}.pt2")(image).shape == (1, 2, 6, 6)
        capsys.readouterr()
        assert main([*line, "--mean", "0.5,0.5,0.5", "--std", "1,1,1"]) == 2
        assert f"error: mean has 3 numbers, and the images' colours are {count}; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("NHWC", "0.5,0.5", "1,1,1"), "mean has 2 numbers, and the images' colours are 3"),
        (("NHWC", "0.5,,0.5", "1,1,1"), "--mean 0.5,,0.5 is not numbers"),
        (("NHWC", "0.5,0.5,0.5", "1,0,1"), "--std 1,0,1 is out of range"),
        (("NHWC", "123.7,116.3,103.5", "1,1,1"), "--mean 123.7,116.3,103.5 is out of range; give shares of 255"),
        (("nhwc", "0.5,0.5,0.5", "1,1,1"), "there is no order 'nhwc'"),
    ],
)
def test_a_normalisation_that_is_none_is_one_line(
    given: tuple[str, str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order, mean, std = given
    assert main(["capture", *NAMED, "--image-bytes", order, "--mean", mean, "--std", std]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1 and not list(Path().glob("*.pt2"))


@pytest.mark.parametrize("verb", ["quantize", "capture"])
def test_missing_packages_are_missed_before_anything_is_written(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    options = ["--calibration", "noise"] if verb == "quantize" else []
    assert main([verb, *NAMED, *options, "-o", "made.pt2", "--onnx", "made.onnx"]) == 2
    told = "error: ONNX export needs two more packages; run: "
    assert capsys.readouterr().err == f"{told}{install_command('onnx')}\n"
    assert not list(Path().glob("made*"))


def test_capture_never_writes_over_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capture", *NAMED]) == 0
    before = Path("net.pt2").read_bytes()
    capsys.readouterr()
    assert main(["capture", "net.pt2"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 'net.pt2' is the model itself") and error.count("\n") == 1
    assert main(["capture", "net.pt2", "--image-bytes", "NHWC", "--mean", "0,0,0", "--std", "1,1,1"]) == 0
    assert "wrote model net-bytes.pt2" in capsys.readouterr().out
    assert main(["capture", "net.pt2", "--onnx", "net.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == {"onnx": "net.onnx"}
    assert Path("net.pt2").read_bytes() == before


def test_arrays_of_another_shape_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("images.npy", np.zeros((4, 1, 16, 16), np.float32))
    assert main(["quantize", *NAMED, "--data", "images.npy"]) == 2
    assert "the calibration inputs do not fit the model" in capsys.readouterr().err


def test_a_quantised_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *NAMED, "--calibration", "noise", "--images", "4", "-o", "int8.pt2"]) == 0
    for line in (
        ["quantize", "int8.pt2", "--calibration", "noise"],
        ["prune", "int8.pt2"],
        ["compact", "int8.pt2"],
        ["explain", "int8.pt2"],
    ):
        capsys.readouterr()
        assert main(line) == 2
        assert "the model is quantised already" in capsys.readouterr().err
    assert main(["train", "int8.pt2", "--data", "data.py:pair", "--preset", "smoke"]) == 2
    assert "the model is quantised already, and cannot be trained; train before you quantise" in capsys.readouterr().err


def test_training_in_8_bits(capsys: pytest.CaptureFixture[str]) -> None:
    """Quantised for training, trained by the verb that trains, and quantised to integers."""
    assert main(["quantize", *NAMED, "--data", "data.py:pair", "--trainable", "-o", "fake.pt2"]) == 0
    line = ["--data", "data.py:pair", "--set", "epochs=2", "--set", "batch=8", "-o", "run"]
    assert main(["train", "fake.pt2", *line]) == 0, capsys.readouterr().err
    capsys.readouterr()
    found = told(capsys, "run/model.pt2", "--data", "data.py:pair", "-o", "int8.pt2", "--onnx", "int8.onnx")
    assert found["report"]["network"]["decibels"] is None and found["accuracy"]["agreement"] == 1.0
    assert [layer["name"] for layer in found["report"]["layers"]] == ["0", "3", "7"]
    module = reconvene.capture("int8.pt2")
    assert module.get_buffer("0.weight").dtype is torch.int8
    assert told(capsys, "run/model.pt2", "-o", "again.pt2")["accuracy"] is None
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(reconvene.capture("again.pt2")(images), module(images))
