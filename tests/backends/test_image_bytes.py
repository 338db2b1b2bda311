"""Programs that take images as bytes: no number is a float where the model is quantised, and all bits are the definition's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.importing.importer import import_module
from reconvene.backends.kernels.tiles import Machine
from reconvene.frontend.image_bytes import on_image_bytes
from tests.support.tools import needs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE = torch.randint(0, 256, (1, 13, 18, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def floats(image: Tensor) -> Tensor:
    colours = image.permute(0, 3, 1, 2).float() / 255
    return (colours - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture(scope="module")
def modules() -> tuple[Any, Any]:
    """In float and in integers, on bytes."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    given = (floats(IMAGE),)
    quantized = reconvene.quantize(network, *given, observer="min-max").module
    return (
        on_image_bytes(network, MEAN, STD, example_inputs=given),
        on_image_bytes(quantized, MEAN, STD),
    )


def reference(module: nn.Module) -> Tensor:
    program = import_module(module, (IMAGE,)).integers
    assert program is not None
    with torch.no_grad():
        found: Tensor = program.module(IMAGE)
    return found


@pytest.mark.parametrize("codes", ["int8", "uint8"])
def test_every_bit_is_the_references(codes: str, modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "codes", property(lambda machine: codes))
    built = reconvene.compile(modules[1], (IMAGE,), dtype="int8")
    assert built.inputs[0].dtype == "uint8" and not built.floats
    assert built.foreign == ("permute_dims",)
    assert torch.equal(torch.as_tensor(built.run(IMAGE)), reference(modules[1]))


def test_layers_in_float_read_bytes_too(modules: Any) -> None:
    found = torch.as_tensor(reconvene.compile(modules[0], (IMAGE,)).run(IMAGE))
    torch.testing.assert_close(found, modules[0](IMAGE).detach(), rtol=1e-4, atol=1e-5)


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_on_a_board(modules: Any, tmp_path: Path) -> None:
    built = reconvene.compile(modules[1], (IMAGE,), "rpi5", dtype="int8", check=False)
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime="static"))
    found = run_bundle(bundle, (IMAGE,), bundle_emulator(bundle))[0]
    assert torch.equal(torch.as_tensor(found), reference(modules[1]))


@needs("qemu-system-arm", "arm-none-eabi-gcc")
def test_on_a_microcontroller(modules: Any, tmp_path: Path) -> None:
    built = reconvene.compile(modules[1], (IMAGE,), "cortex-m4", dtype="int8", check=False)
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime="none"))
    found = run_bundle(bundle, (IMAGE,), bundle_emulator(bundle))[0]
    assert np.array_equal(np.asarray(found), reference(modules[1]).numpy())
