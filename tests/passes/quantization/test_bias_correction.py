"""Bias correction: the mean of every channel is that of the float network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.quantization.bias_correction import correct_biases
from reconvene.passes.quantization.conversion import converted
from reconvene.passes.quantization.preparation import prepared
from reconvene.passes.quantization.ranges import RANGES
from reconvene.passes.quantization.rounding import float_reasons
from reconvene.passes.running import Recorder

pytest.importorskip("torchao", reason="pip install '.[int8]'")

IMAGES = torch.rand(24, 3, 10, 10, generator=torch.Generator().manual_seed(0)) + 0.5


def test_means_of_all_channels_are_those_of_the_float_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), nn.Flatten(), nn.Linear(288, 4)
    ).eval()  # fmt: skip
    module = prepared(capture(model, (IMAGES[:2],)), biases=True)
    calls = [(IMAGES[:8],), (IMAGES[8:],)]
    result, rounding = converted(module, float_reasons(module, lambda name: None), calls, RANGES["min-max"])
    before = means(module, rounding), means(result, rounding)
    assert correct_biases(module, result, rounding, calls) == 3
    after = means(result, rounding)
    for name, wanted in before[0].items():
        assert (after[name] - wanted).abs().max() < 1e-5
        assert (before[1][name] - wanted).abs().max() > 1e-4


def means(module: object, rounding: object) -> dict[str, torch.Tensor]:
    recorder = Recorder(module, None)  # type: ignore[arg-type]
    recorder.values((IMAGES,))
    names = [node.name for node in rounding.layers]  # type: ignore[attr-defined]
    return {name: recorder.seen[name].transpose(0, 1).flatten(1).mean(1) for name in names}
