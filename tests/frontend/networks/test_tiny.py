"""The networks of MLPerf Tiny: numbers of weights and of multiply-accumulates as they are published, and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reconvene.frontend.networks.papers import NETWORKS


@pytest.mark.parametrize(
    ("name", "weights", "normalising", "macs", "outputs"),
    [
        ("resnet8-cifar", 77_706, 960, 12_501_632, (1, 10)),
        ("ds-cnn", 22_604, 2_304, 2_656_768, (1, 12)),
        ("mobilenet-v1-vww", 210_850, 10_944, 7_489_664, (1, 2)),
        ("autoencoder-ad", 265_864, 4_128, 264_192, (1, 640)),
    ],
)
def test_they_are_those_that_are_published(
    name: str, weights: int, normalising: int, macs: int, outputs: tuple[int, ...]
) -> None:
    network = NETWORKS[name]
    module = network.build().eval()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert sum(4 * norm.num_features for norm in norms) == normalising
    assert sum(p.numel() for p in module.parameters()) - sum(2 * norm.num_features for norm in norms) == weights
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert module(torch.randn(network.shape)).shape == outputs
    assert counter.get_total_flops() == 2 * macs
