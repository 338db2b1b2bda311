"""Layers of codes on cores without vectors: tiles that the general registers hold, and bits that are the reference's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.estimate.bundle import estimate_bundle
from reconvene.backends.importing.importer import import_module
from reconvene.backends.kernels.tiles import Machine, ranked_tiles
from reconvene.backends.machines.targets import find_target
from tests.support.tools import needs

X = torch.randn(1, 8, 12, 12, generator=torch.Generator().manual_seed(0))
MACS = 144 * (8 * 12 * 9 + 12 * 9 + 12 * 24) + 36 * 24 * 5


class Network(nn.Module):
    """Images whose channels lie side by side, planes, both in one sum, and one that becomes a vector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.own = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.wide, self.last = nn.Conv2d(12, 24, 1), nn.Linear(24 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        x = self.wide((x + self.own(x)).relu()).relu()
        found: torch.Tensor = self.last(nn.functional.max_pool2d(x, 2).flatten(1))
        return found


def test_tiles_take_as_many_registers_as_there_are() -> None:
    machine = find_target("cortex-m4").machine.one_by_one("int8")
    tiles = ranked_tiles(machine, 32, 16, 16, 288)
    # Sums, the weights of a step, and the pixels that columns of a window share.
    assert all(tile.blocks * tile.pixels + tile.blocks + tile.pixels <= machine.registers == 11 for tile in tiles)
    assert tiles[0].blocks * tiles[0].pixels == 6
    assert find_target("cortex-m4").machine.one_by_one("float32") == find_target("cortex-m4").machine
    vectors = Machine(16, 31, 1 << 20)
    assert vectors.one_by_one("int8") is vectors


@needs("qemu-system-arm", "arm-none-eabi-g++", "llvm-mca")
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7"])
def test_nothing_is_spilled_and_bits_are_equal(target: str, tmp_path: Path) -> None:
    module = reconvene.quantize(Network().eval(), X, example_inputs=X, observer="min-max").module
    integers = import_module(module, (X,)).integers
    assert integers is not None
    built = compile(module, (X,), target, check=False)
    assert [layer.dtype for layer in built.layers] == ["int8"] * 4
    folder = built.export(tmp_path / "bundle")
    bundle = open_bundle(folder)
    (found,) = run_bundle(bundle, (X,), bundle_emulator(bundle))
    wanted = integers.module(X)
    assert torch.equal(found, wanted[0] if isinstance(wanted, tuple) else wanted)
    kernels = [kernel for kernel in estimate_bundle(folder).kernels if kernel.name.startswith("paired")]
    # Two products at a time, as many instructions that load and widen, and the way from sums to codes.
    assert sum(kernel.instructions for kernel in kernels) < 2.0 * MACS
