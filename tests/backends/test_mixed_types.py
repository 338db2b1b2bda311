"""Quantised networks on a core that has no instructions for codes: some layers on codes, others in float32."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reconvene
from reconvene.backends.built import Built
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import imported_module
from reconvene.backends.estimate.bundle import estimate_bundle
from reconvene.backends.faster_in_float import faster_in_float
from reconvene.backends.machines.targets import find_target
from tests.support.tools import needs

pytestmark = needs("qemu-aarch64", "aarch64-linux-gnu-g++", "llvm-mca")
IMAGE = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Some layers of a ResNet with half of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.one, self.two = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.down, self.beside = nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.Conv2d(32, 64, 1, stride=2)
        self.last, self.further = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 128, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        x = torch.relu(x + self.two(torch.relu(self.one(x))))
        return torch.relu(self.further(torch.relu(self.beside(x) + self.last(torch.relu(self.down(x))))))


class Compiled(NamedTuple):
    module: nn.Module
    built: Built
    folder: Path


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    torch.manual_seed(0)
    module = reconvene.quantize(Residual().eval(), (IMAGE,), example_inputs=(IMAGE,), observer="min-max").module
    built = reconvene.compile(module, (IMAGE,), "rpi3", check=False)
    return Compiled(module, built, built.export(tmp_path_factory.mktemp("mixed") / "bundle", runtime="static"))


def test_codes_that_layers_of_float32_make_are_the_references(quantised: Compiled) -> None:
    """But for sums next to a tie, of which float32 is the last bit of another sum."""
    floats = faster_in_float(imported_module(quantised.module, (IMAGE,)), find_target("rpi3").machine)
    assert {layer.dtype for layer in quantised.built.layers} == {"float32", "int8"} and floats
    integers = imported_module(quantised.module, (IMAGE,), floats=floats).integers
    assert integers is not None
    with torch.no_grad():
        wanted = integers.module(IMAGE)
    bundle = open_bundle(quantised.folder)
    found = torch.as_tensor(run_bundle(bundle, (IMAGE,), bundle_emulator(bundle))[0])
    apart, largest = (found - wanted).abs(), float(wanted.max())
    assert float(apart.max()) < 0.02 * largest and float(apart.mean()) < 1e-4 * largest


def test_a_network_takes_no_more_cycles_than_in_float32(quantised: Compiled, tmp_path: Path) -> None:
    """On the Cortex-A53, what turns codes into floats and back, and pools codes, once took more than codes saved."""
    torch.manual_seed(0)
    built = reconvene.compile(Residual().eval(), (IMAGE,), "rpi3", check=False)
    floats = estimate_bundle(built.export(tmp_path / "bundle", runtime="static"))
    mixed = estimate_bundle(quantised.folder)
    assert mixed.total.cycles < floats.total.cycles
