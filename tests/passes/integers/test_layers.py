"""Layers on codes beside those of images: along lines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fuzzing.quantised import QuantisedConv
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.lowered import Layer, lowered


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2, "padding": 3},
        {"dilation": 2, "padding": "same"},
        {"groups": 4, "padding": "valid"},
    ],
)
def test_a_line_is_an_image_of_height_1(options: dict[str, Any]) -> None:
    """Sums, and so codes, are those of the same weights in a window of height 1."""
    torch.manual_seed(0)
    line, x = QuantisedConv(4, 8, 3, axes=1, **options), torch.randn(2, 4, 11)
    lines, exported = lowered(Layer(line, lambda x: F.max_pool1d(torch.relu(x), 2)), x)

    class Image(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            padding = options["padding"]
            given = {**options, "stride": (1, options.get("stride", 1)), "dilation": (1, options.get("dilation", 1))}
            given["padding"] = padding if isinstance(padding, str) else (0, padding)
            weight = torch.ops.quantized_decomposed.dequantize_per_channel(
                line.codes.unsqueeze(2), line.scales, line.zeros, 0, -127, 127, torch.int8
            )
            return F.conv2d(x, weight, line.bias, **given)

    images, _ = lowered(Layer(Image(), lambda x: F.max_pool2d(torch.relu(x), (1, 2))), x.unsqueeze(2))
    assert lines.layers == 1 and lines.floats == ()
    assert torch.equal(lines.module(x), images.module(x.unsqueeze(2)).squeeze(2))
    assert float(((lines.module(x) - exported(x)) / 0.05).abs().max()) < 1.01
