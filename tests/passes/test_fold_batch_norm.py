"""Batch normalisation folds into what comes before it: the same function, fewer nodes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.compaction import compact
from reconvene.passes.fold_batch_norm import fold_batch_norm

from ..support.models import randomise

IMAGE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def captured(*layers: nn.Module) -> CapturedModule:
    return capture(randomise(nn.Sequential(*layers).double(), 0), (IMAGE,))


def norms(module: torch.fx.GraphModule) -> int:
    return sum("batch_norm" in str(node.target) for node in module.graph.nodes)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.Conv2d(4, 8, 3, groups=2, padding=1),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
    ],
    ids=["biased", "without-bias", "grouped", "depthwise", "transposed", "transposed-grouped"],
)
def test_a_folded_layer_computes_the_same(layer: nn.Module) -> None:
    module = captured(layer, nn.BatchNorm2d(layer(IMAGE.float()).shape[1]), nn.ReLU())
    folded = fold_batch_norm(module)
    assert norms(module) == 1 and norms(folded) == 0
    torch.testing.assert_close(folded(IMAGE), module(IMAGE), rtol=1e-12, atol=1e-12)


def test_normalisation_without_affine_parameters_folds_too() -> None:
    module = captured(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False))
    torch.testing.assert_close(fold_batch_norm(module)(IMAGE), module(IMAGE), rtol=1e-12, atol=1e-12)


def test_a_layer_with_two_readers_keeps_its_normalisation() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    module = capture(randomise(Branch().double(), 0), (IMAGE,))
    folded = fold_batch_norm(module)
    assert norms(folded) == 1
    torch.testing.assert_close(folded(IMAGE), module(IMAGE))


def test_the_given_module_is_left_as_it_was() -> None:
    module = captured(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    before, text = module(IMAGE), str(module.graph)
    fold_batch_norm(module)
    assert torch.equal(module(IMAGE), before) and str(module.graph) == text


def test_compaction_folds_when_asked_and_checks_the_result() -> None:
    module = captured(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    masks = {"0.weight": torch.arange(8) % 2 == 0}
    folded, plain = compact(module, (IMAGE,), masks, fold=True), compact(module, (IMAGE,), masks)
    assert norms(folded.module) == 0 and norms(plain.module) == 1
    assert folded.certificate.max_relative < 1e-12
    torch.testing.assert_close(folded.module(IMAGE), plain.module(IMAGE), rtol=1e-12, atol=1e-12)
