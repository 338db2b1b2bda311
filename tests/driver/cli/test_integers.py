"""A quantised model from the command line: compiled, run here and on emulated machines, estimated, on codes and on floats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.importing.importer import import_module
from reconvene.driver.cli.command_line import main
from tests.support.tools import needs

pytest.importorskip("torchao", reason="pip install 'reconvene[int8]'")

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model's file."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    done = reconvene.quantize(network, X, example_inputs=X, observer="min-max", round_outputs=True)
    folder = tmp_path_factory.mktemp("integers")
    done.save(folder / "int8.pt2")
    return folder


@pytest.fixture(scope="module")
def wanted(saved: Path) -> torch.Tensor:
    program = import_module(reconvene.capture(saved / "int8.pt2"), (X,)).integers
    assert program is not None
    found: torch.Tensor = program.module(X)
    return found


@pytest.fixture(autouse=True)
def here(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def numbers(end: Any, codes: np.ndarray[Any, Any]) -> torch.Tensor:
    scale, zero = end["codes"]["scale"], end["codes"]["zero_point"]
    found: torch.Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(
        torch.as_tensor(codes), scale, zero, -128, 127, torch.int8
    )
    return found


def coded(end: Any) -> np.ndarray[Any, Any]:
    scale, zero = end["codes"]["scale"], end["codes"]["zero_point"]
    found: torch.Tensor = torch.ops.quantized_decomposed.quantize_per_tensor(X, scale, zero, -128, 127, torch.int8)
    return found.numpy()


@pytest.mark.parametrize(
    ("target", "where"),
    [
        pytest.param("host", [], id="host"),
        pytest.param("rpi4", ["--on", "qemu"], id="rpi4", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("cortex-m4", ["--on", "qemu"], id="m4", marks=needs("qemu-system-arm", "arm-none-eabi-g++")),
    ],
)
def test_on_codes(
    target: str, where: list[str], wanted: torch.Tensor, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = str(tmp_path / "bundle")
    options = ["--dtype", "int8", "--codes", "both", "--no-check", "-o", bundle]
    told = answered(capsys, "compile", "int8.pt2", "--target", target, *options)
    np.save(tmp_path / "codes.npy", coded(told["inputs"][0]))
    answered(capsys, "run", bundle, *where, str(tmp_path / "codes.npy"), "-o", str(tmp_path / "y.npy"))
    found = np.load(tmp_path / "y.npy")
    assert found.dtype == np.int8 and torch.equal(numbers(told["outputs"][0], found), wanted)
    # Without inputs it runs on ones that are made.
    assert answered(capsys, "run", bundle, *where)["outputs"][0]["dtype"] == "int8"
    if target == "rpi4" and shutil.which("llvm-mca"):
        kernels = answered(capsys, "estimate", bundle)["kernels"]
        assert {kernel["name"].rpartition("_")[0] for kernel in kernels} >= {"integer_convolution"}


def test_an_end_without_codes_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "int8.pt2", "--codes", "all"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.strip() == "error: codes cannot be at 'all'; choose inputs, outputs or both"
