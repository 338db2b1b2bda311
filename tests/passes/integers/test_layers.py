"""Layers on codes beside those of images: along lines and transposed; weights of other types; why a layer is in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fuzzing.quantised import QuantisedConv, QuantisedLinear, QuantisedTransposed, coded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import reconvene
from reconvene.passes.integers.transposed import spread_of, spread_out, turned
from tests.support.lowered import FINE, Layer, lowered


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


TRANSPOSED: tuple[dict[str, Any], ...] = (
    {"stride": 2, "padding": 1},
    {"stride": (3, 2), "padding": (0, 2), "output_padding": (2, 1), "dilation": (1, 2)},
    {"groups": 4, "stride": 2, "output_padding": 1},
    {"groups": 2, "padding": 2},
)


@pytest.mark.parametrize("options", TRANSPOSED)
def test_a_transposed_convolution_is_one_of_spread_pixels(options: dict[str, Any]) -> None:
    x = torch.randn(2, 4, 5, 6)
    program, exported = lowered(Layer(QuantisedTransposed(4, 8, 3, **options), torch.relu), x)
    assert program.layers == 1 and program.floats == ()
    apart = ((program.module(x) - exported(x)) / 0.05).abs()
    assert float(apart.max()) < 1.01 and float((apart > 0.5).float().mean()) < 0.01


def test_so_is_one_along_a_line() -> None:
    x = torch.randn(2, 4, 9)
    program, exported = lowered(Layer(QuantisedTransposed(4, 6, 4, axes=1, stride=2, padding=1)), x)
    assert program.layers == 1 and program.floats == ()
    assert float(((program.module(x) - exported(x)) / 0.05).abs().max()) < 1.01


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.integers(1, 2))
def test_sums_are_those_of_exact_numbers(kernel: int, stride: int, padding: int, dilation: int, groups: int) -> None:
    """Of whole numbers, every sum is PyTorch's of float64."""
    padding = min(padding, dilation * (kernel - 1))
    generator = torch.Generator().manual_seed(kernel)
    weight = torch.randint(-127, 128, (4, 3, kernel, kernel), generator=generator).double()
    image = torch.randint(-128, 128, (1, 4, 6, 5), generator=generator).double()
    wanted = F.conv_transpose2d(image, weight, None, stride, padding, stride - 1, groups, dilation)
    spread = spread_of([kernel] * 2, [stride] * 2, [padding] * 2, [stride - 1] * 2, [dilation] * 2)
    graph = torch.fx.Graph()
    node = graph.placeholder("image")
    node.meta["val"] = image

    def emit(at: torch.fx.Node, target: Any, source: torch.fx.Node, *args: Any) -> torch.fx.Node:
        found = graph.call_function(target, (source, *args))
        found.meta["val"] = target(source.meta["val"], *args)
        return found

    spread_image = spread_out(node, emit, node, 0, spread).meta["val"]
    found = F.conv2d(spread_image, turned(weight, groups), dilation=dilation, groups=groups)
    assert torch.equal(found, wanted)


Q = torch.ops.quantized_decomposed


class Product(nn.Module):
    """A linear layer with weights (3, 6) as `weights` makes them of a module's codes."""

    def __init__(self, weights: Callable[[QuantisedLinear], Tensor], coded: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.weights, self.coded = QuantisedLinear(6, 3), weights, coded
        self.layer.codes.clamp_(-100, 100)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(coded(x, *FINE) if self.coded else x, self.weights(self.layer))


def unsigned(layer: QuantisedLinear) -> Tensor:
    codes = (layer.codes.to(torch.int16) + 128).to(torch.uint8)
    return Q.dequantize_per_channel(codes, layer.scales, layer.zeros + 128, 0, 0, 255, torch.uint8)


def skewed(layer: QuantisedLinear) -> Tensor:
    return Q.dequantize_per_channel(layer.codes, layer.scales, layer.zeros + 5, 0, -128, 127, torch.int8)


def of_a_tensor(layer: QuantisedLinear) -> Tensor:
    scale, zero = torch.tensor(0.01), torch.tensor(3)
    return Q.dequantize_per_tensor.tensor(layer.codes, scale, zero, -128, 127, torch.int8)


def axis_from_behind(layer: QuantisedLinear) -> Tensor:
    return Q.dequantize_per_channel(layer.codes, layer.scales, None, -2, -127, 127, torch.int8)


@pytest.mark.parametrize("weights", [unsigned, skewed, of_a_tensor, axis_from_behind])
def test_weights_of_other_types_and_zeros_are_int8_without_one(weights: Callable[[QuantisedLinear], Tensor]) -> None:
    x = torch.randn(4, 6)
    program, exported = lowered(Product(weights), x)
    assert program.layers == 1 and program.floats == ()
    torch.testing.assert_close(program.module(x), exported(x), rtol=1e-5, atol=1e-6)


def in_groups(layer: QuantisedLinear) -> Tensor:
    ones, zeros = torch.ones(3, 2), torch.zeros(3, 2, dtype=torch.int8)
    return Q.dequantize_per_channel_group(layer.codes, ones, zeros, -8, 7, torch.int8, 3, torch.float32)


def along_inputs(layer: QuantisedLinear) -> Tensor:
    return Q.dequantize_per_channel(layer.codes, torch.ones(6), torch.zeros(6).long(), 1, -127, 127, torch.int8)


def far(layer: QuantisedLinear) -> Tensor:
    return Q.dequantize_per_channel(layer.codes, layer.scales, layer.zeros - 100, 0, -128, 127, torch.int8)


def with_scale(number: float) -> Callable[[QuantisedLinear], Tensor]:
    scales = torch.tensor([0.01, number, 0.02])
    return lambda layer: Q.dequantize_per_channel(layer.codes, scales, layer.zeros, 0, -127, 127, torch.int8)


def with_half_a_zero(layer: QuantisedLinear) -> Tensor:
    return Q.dequantize_per_channel(layer.codes, layer.scales, torch.full((3,), 0.5), 0, -127, 127, torch.int8)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Product(in_groups), "its weights have scales for groups"),
        (Product(along_inputs), "its weights have scales along axis 1"),
        (Product(far), "its weights are further than a byte from their zero point"),
        (Product(with_scale(0.0)), "a scale of its weights is zero, infinite or NaN"),
        (Product(with_scale(math.inf)), "a scale of its weights is zero, infinite or NaN"),
        (Product(with_half_a_zero), "a zero point of its weights is no whole number"),
        (Product(lambda layer: layer.weight, coded=False), "its input is not quantised"),
    ],
)
def test_why_a_layer_is_in_float32_is_told(module: nn.Module, why: str) -> None:
    x = torch.randn(4, 6)
    program, exported = lowered(module, x)
    (told,) = program.floats
    assert told.startswith("linear at ") and f": {why}" in told
    torch.testing.assert_close(program.module(x), exported(x), equal_nan=True)


def test_codes_wider_than_a_byte_are_named() -> None:
    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return coded(x, 1e-4, 0, -32768, 32767, torch.int16)

    (told,) = lowered(Wide(), torch.randn(3))[0].floats
    assert told.startswith("dequantize_per_tensor at ") and "wider than a byte" in told


def test_an_empty_batch_is_compiled() -> None:
    module, x = Layer(QuantisedLinear(6, 3)).eval(), torch.randn(0, 6)
    (told,) = (one for one in lowered(module, x)[0].floats if one.startswith("linear"))
    assert told.endswith("it computes nothing")
    assert reconvene.compile(module, (x,)).run(x).shape == (0, 3)
