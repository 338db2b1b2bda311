"""Compiled networks that take and give codes: the bits of those that do not, here, on boards, and in what bundles say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.backends.built import Built, load_bundle
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.manifest import tensor_specs
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.tensor_spec import CodeScale, TensorSpec
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs

pytest.importorskip("torchao", reason="pip install 'reconvene[int8]'")

Q = torch.ops.quantized_decomposed
X = torch.randn(1, 3, 9, 10, generator=torch.Generator().manual_seed(1))
OTHER = 2 * torch.randn(1, 3, 9, 10, generator=torch.Generator().manual_seed(2))


def coded(values: Tensor, codes: CodeScale) -> Tensor:
    found: Tensor = Q.quantize_per_tensor(values, codes.scale, codes.zero_point, -128, 127, torch.int8)
    return found


def numbers(codes: Tensor, scale: CodeScale) -> Tensor:
    found: Tensor = Q.dequantize_per_tensor(codes, scale.scale, scale.zero_point, -128, 127, torch.int8)
    return found


def scale_of(spec: TensorSpec) -> CodeScale:
    assert spec.dtype == "int8" and spec.codes is not None
    return spec.codes


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(72, 5)).eval()


@pytest.fixture(scope="module")
def module(network: nn.Module) -> Any:
    return reconvene.quantize(network, X, example_inputs=X, observer="min-max", round_outputs=True).module


@pytest.fixture(scope="module")
def wanted(module: Any) -> Tensor:
    """Of `OTHER`, by the program that takes and gives floats."""
    return torch.as_tensor(reconvene.compile(module, X, dtype="int8").run(OTHER))


def check(built: Built, module: Any, wanted: Tensor) -> None:
    goes_in, comes_out = built.inputs[0].codes, built.outputs[0].codes
    found = torch.as_tensor(built.run(OTHER if goes_in is None else coded(OTHER, goes_in)))
    assert torch.equal(found if comes_out is None else numbers(found, comes_out), wanted)
    assert built.floats == ()


@pytest.mark.parametrize("machine_codes", ["int8", "uint8"])
def test_bits_are_those_of_floats(
    machine_codes: str, module: Any, wanted: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "codes", property(lambda machine: machine_codes))
    for ends, dtypes in (("both", "int8 int8"), ("inputs", "int8 float32"), ("outputs", "float32 int8")):
        built = reconvene.compile(module, X, dtype="int8", codes=ends, check_inputs=[(OTHER,)])  # type: ignore[arg-type]
        assert [built.inputs[0].dtype, built.outputs[0].dtype] == dtypes.split()
        check(built, module, wanted)


def test_a_bundle_says_it(module: Any, wanted: Tensor, tmp_path: Path) -> None:
    built = reconvene.compile(module, X, dtype="int8", codes="both")
    folder = built.export(tmp_path / "bundle")
    loaded = load_bundle(folder)
    assert (loaded.inputs, loaded.outputs) == (built.inputs, built.outputs)
    check(loaded, module, wanted)
    manifest = json.loads((folder / "manifest.json").read_text())
    scale = scale_of(built.outputs[0])
    assert manifest["outputs"][0]["codes"] == {"scale": scale.scale, "zero_point": scale.zero_point}
    assert f"| `output0` | int8 | 1 x 5 | {scale} |" in (folder / "README.md").read_text()


@needs("qemu-system-arm", "arm-none-eabi-gcc")
def test_on_a_microcontroller(module: Any, wanted: Tensor, tmp_path: Path) -> None:
    built = reconvene.compile(module, X, "cortex-m4", dtype="int8", codes="both", check=False)
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime="none"))
    given, gives = scale_of(bundle.inputs[0]), scale_of(bundle.outputs[0])
    (found,) = run_bundle(bundle, (coded(OTHER, given),), bundle_emulator(bundle))
    assert torch.equal(numbers(torch.as_tensor(found), gives), wanted)
    header = (bundle.folder / "reconvene_model.h").read_text()
    assert f"#define RECONVENE_INPUT0_SCALE {given.scale!r}f\n" in header
    assert f"#define RECONVENE_OUTPUT0_ZERO_POINT {gives.zero_point}\n" in header
    assert "int reconvene_run(const int8_t *input0, int8_t *output0);" in header


def test_other_bytes_are_told_what_is_asked_for(module: Any) -> None:
    built = reconvene.compile(module, X, dtype="int8", codes="inputs")
    with pytest.raises(
        InputError, match=r"input 'input' must be int8 1x3x9x10 of 0\.\d+ \* \(code . \d+\), got float32 1x3x9x10"
    ):
        built.run(OTHER)


def test_ends_without_codes(network: nn.Module) -> None:
    with pytest.raises(InputError, match="the model is not quantised, so it has no codes to take or give"):
        reconvene.compile(network, X, codes="both")
    plain = reconvene.quantize(network, X, example_inputs=X, observer="min-max").module
    with pytest.raises(InputError, match=r"output 0 cannot be codes: 'linear' .*round_outputs=True"):
        reconvene.compile(plain, X, codes="both")


def test_a_manifest_that_says_it_wrongly() -> None:
    def said(**codes: Any) -> list[Any]:
        return [{"name": "x", "shape": [2], "dtype": codes.pop("dtype", "int8"), "codes": codes}]

    assert tensor_specs(said(scale=0.5, zero_point=-3)) == (TensorSpec("x", (2,), "int8", CodeScale(0.5, -3)),)
    assert tensor_specs(said(scale=0.5, zero_point=200, dtype="uint8"))[0].codes == CodeScale(0.5, 200)
    for wrong in (
        {"scale": 0.0, "zero_point": 1},
        {"scale": "1", "zero_point": 1},
        {"scale": 0.5, "zero_point": 128},
        {"scale": 0.5, "zero_point": True},
        {"scale": 0.5},
        {"scale": 0.5, "zero_point": 1, "more": 1},
        {"scale": 0.5, "zero_point": 1, "dtype": "float32"},
    ):
        with pytest.raises(ValueError):
            tensor_specs(said(**wrong))
