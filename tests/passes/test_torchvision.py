"""The networks exactness is shown on, and those that other libraries break: exact, and really smaller."""

from __future__ import annotations

import pytest
import torch
from models import EXACTNESS, build, image_size
from zoo import SUBSET, fitting_inputs
from zoo import build as build_any

from ..support.models import Exactness, randomise

RELATIVES = (
    "vgg11 vgg11_bn inception_v3 mobilenet_v2 mnasnet0_5 regnet_x_400mf resnext50_32x4d lraspp_mobilenet_v3_large"
).split()
"""They have no structure that others do not have; `benchmarks/exactness.py` and ``make zoo`` run them, too."""

LAYER_NORMALISED = ("convnext_tiny", "vit_b_32", "swin_t")
"""Their residual streams stay under M1: a zero channel is no constant once the mean is subtracted from it."""

# Half of the channels leave about a quarter of the weights, but depthwise kernels shrink in one direction only.
MOST_PARAMETERS_KEPT = {"shufflenet_v2_x0_5": 0.46}


@pytest.mark.parametrize("name", [name for name in EXACTNESS if name not in RELATIVES])
def test_compacted_equals_masked(name: str) -> None:
    size = image_size(name, small=True)
    exactness = Exactness(randomise(build(name), 0), (torch.randn(1, 3, size, size),))
    for kind in ("M1", "M2"):
        found = exactness.check(kind)
        stream_stays = kind == "M1" and name in LAYER_NORMALISED
        most = 0.56 if stream_stays else MOST_PARAMETERS_KEPT.get(name, 0.37)
        assert found.after.parameters / found.before.parameters < most
        short = [group for group in found.groups if group.got < group.asked]
        assert kind == "M1" or not short
        expected = ("carries", "equally", "read by") if stream_stays else ("carries", "equally")
        assert all(any(word in reason for reason in group.reasons for word in expected) for group in short)


@pytest.mark.parametrize("name", [name for name in SUBSET if name not in EXACTNESS])
def test_the_rest_of_the_zoo_subset(name: str) -> None:
    network, shapes = build_any(name)
    inputs = fitting_inputs(network.double(), shapes, torch.float64, 1)
    exactness = Exactness(randomise(network, 0), inputs)
    for kind in ("M1", "M2"):
        assert exactness.check(kind).after.parameters < 0.6 * sum(p.numel() for p in network.parameters())
