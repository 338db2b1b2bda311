"""Functions of one value that a graph takes as bytes."""

from __future__ import annotations

import pytest
import torch
from fuzzing.quantised import QuantisedConv, coded
from torch import Tensor, nn

from reconvene.passes.integers.operators import OPERATORS
from tests.support.lowered import lowered


class Bytes(nn.Module):
    """Of images as files have them."""

    def __init__(self, by_channel: bool) -> None:
        super().__init__()
        self.layer, self.by_channel = QuantisedConv(3, 5, 3), by_channel

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2).float() / 255
        if self.by_channel:
            x = (x - torch.tensor([0.4, 0.45, 0.5]).view(3, 1, 1)) / torch.tensor([0.2, 0.21, 0.22]).view(3, 1, 1)
        return coded(self.layer(coded(x, 0.02, -5)), 0.05, 3)


@pytest.mark.parametrize("by_channel", [False, True])
def test_bytes_that_are_made_numbers_are_codes(by_channel: bool) -> None:
    x = torch.randint(0, 256, (2, 9, 8, 3), dtype=torch.uint8)
    program, exported = lowered(Bytes(by_channel), x)
    assert program.floats == () and program.layers == 1
    assert not any(node.target is OPERATORS.quantize.default for node in program.module.graph.nodes)
    assert float(((program.module(x) - exported(x)) / 0.05).abs().max()) < 1.01


def test_what_reads_bytes_as_they_are_adds_up_bytes() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = QuantisedConv(3, 5, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.float())

    x = torch.randint(0, 256, (1, 3, 6, 5), dtype=torch.uint8)
    module = Direct()
    program, exported = lowered(module, x)
    assert program.layers == 1
    half_a_step = 0.5 * float(module.layer.scales.max())  # To which the bias is rounded.
    torch.testing.assert_close(program.module(x), exported(x), rtol=1e-5, atol=1.01 * half_a_step)
