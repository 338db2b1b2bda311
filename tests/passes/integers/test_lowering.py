"""What int8 means: the rewritten graph against exact integers by hand, and within one step of the graph it came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing.quantised import QuantisedConv, QuantisedLinear, coded, of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.passes.integers.lowering import with_integers
from reconvene.passes.integers.operators import OPERATORS
from reconvene.passes.integers.scheme import Codes
from tests.support.lowered import FINE, Layer, lowered, steps_apart

Q = torch.ops.quantized_decomposed


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_a_convolution_is_the_formula() -> None:
    """``clamp(rne(float32(bias + w (x - z)) * float32(s_x s_w / s_y))) + z_y`` in NumPy."""
    layer = QuantisedConv(3, 5, 3, stride=2, padding=1)
    x = torch.randn(2, 3, 7, 6)
    program, _ = lowered(Layer(layer), x)
    codes = np.clip(np.rint(x.numpy() * np.float32(1 / 0.03)) - 5, -128, 127).astype("int64")
    framed = np.pad(codes + 5, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = layer.codes.numpy().astype("int64")
    scale = layer.scales.double().numpy() * 0.03
    sums = (
        np.zeros((2, 5, 4, 3), "int64")
        + np.rint(layer.bias.detach().double().numpy() / scale).astype("int64")[:, None, None]
    )
    for row, column in np.ndindex(3, 3):
        sums += np.einsum(
            "oc,nchw->nohw", weight[:, :, row, column], framed[:, :, row : row + 7 : 2, column : column + 6 : 2]
        )
    steps = sums.astype("float32") * (scale / 0.05).astype("float32")[:, None, None]
    wanted = (np.rint(np.clip(steps, -131, 124)) * 0.05).astype("float32")
    np.testing.assert_array_equal(program.module(x).detach().numpy(), wanted)
    assert program.layers == 1 and program.floats == ()


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"padding": 1}, (9, 8)),
        ({"stride": 2, "padding": (1, 0)}, (9, 8)),
        ({"dilation": 2, "padding": 2}, (9, 8)),
        ({"padding": "same"}, (9, 8)),
        ({"padding": "valid", "stride": (2, 1)}, (9, 8)),
        ({"groups": 4, "padding": 1}, (5, 5)),
        ({"groups": 2}, (5, 5)),
    ],
)
@pytest.mark.parametrize(
    "after", [torch.relu, F.relu6, lambda x: x.clamp_max(0.9).clamp(-0.4), lambda x: F.max_pool2d(torch.relu(x), 2)]
)
def test_layers_are_at_most_a_step_off(
    options: dict[str, Any], size: tuple[int, int], after: Callable[..., Tensor]
) -> None:
    module, x = Layer(QuantisedConv(4, 8, 3, **options), after), torch.randn(2, 4, *size)
    program, exported = lowered(module, x)
    assert program.floats == ()
    apart = ((program.module(x) - exported(x)) / 0.05).abs()
    assert float(apart.max()) < 1.01 and float((apart > 0.5).float().mean()) < 0.01


def test_parts_are_taken_once() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first, second = coded(x, *FINE).chunk(2, 1)
            return coded(first + second, 0.05, 3)

    x = torch.randn(2, 4, 3, 3)
    program, _ = lowered(Halves(), x)
    chunks = [node for node in program.module.graph.nodes if node.target is torch.ops.aten.chunk.default]
    assert program.floats == () and len(chunks) == 1 and chunks[0].meta["val"][0].dtype is torch.int8


@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6), (2, 3, 4, 6)])
def test_linear_layers_of_any_number_of_axes(shape: tuple[int, ...]) -> None:
    module = Layer(QuantisedLinear(6, 7))
    assert float(steps_apart(module, 0.05, torch.randn(shape)).max()) < 1.01
    assert lowered(module, torch.randn(shape))[0].floats == ()


def test_a_convolution_without_a_bias_and_with_no_options() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = QuantisedConv(3, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return coded(F.conv2d(coded(x, *FINE), self.layer.weight), 0.05, 3)

    assert float(steps_apart(Plain(), 0.05, torch.randn(2, 3, 7, 6)).max()) < 1.01


def test_what_gives_float_is_rescaled_and_not_rounded() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = QuantisedLinear(40, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(coded(x, *FINE))

    x = torch.randn(3, 40)
    program, exported = lowered(Last(), x)
    assert program.layers == 1
    # The bias is rounded to a step of both scales, and nothing else is.
    torch.testing.assert_close(program.module(x), exported(x), rtol=0, atol=0.03 * float(Last().layer.scales.max()))


@pytest.mark.parametrize(
    ("function", "sides"),
    [
        (torch.add, 2),
        (lambda a, b: torch.relu(a + b), 2),
        (torch.mul, 2),
        (lambda a, b: torch.cat([a, b], 1), 2),
        (lambda a: F.hardswish(a), 1),
        (lambda a: a * torch.sigmoid(a), 1),
        (lambda a: F.gelu(2 * a - 1), 1),
        (lambda a: a.mean((2, 3)), 1),
        (lambda a: F.adaptive_avg_pool2d(a, 1), 1),
        (lambda a: F.adaptive_avg_pool2d(a, (3, 2)), 1),
        (lambda a: F.avg_pool2d(a, 3, 2, 1), 1),
        (lambda a: F.max_pool2d(a, 3, 2, 1), 1),
        (lambda a: F.pad(a, (1, 2, 0, 1)), 1),
        (lambda a: F.pad(a, (1, 2, 0, 1), value=0.5), 1),
        (lambda a: a.flatten(1), 1),
        (lambda a: a.permute(0, 2, 3, 1), 1),
        (lambda a: a[:, 1:3, ::2], 1),
        (lambda a: F.pixel_shuffle(a, 2), 1),
        (lambda a: F.channel_shuffle(a, 2), 1),
        (lambda a: F.dropout(a, 0.5, training=False), 1),
        (torch.sub, 2),
        (lambda a, b: torch.add(a, b, alpha=-0.37), 2),
        (lambda a: torch.rsub(a, a.flip(1)), 1),
        (lambda a: a + torch.linspace(-1, 1, 4).view(4, 1, 1), 1),
        (lambda a: torch.linspace(-1, 1, 8) - a, 1),
        (lambda a: a * torch.linspace(-1, 1, 4 * 48).view(4, 6, 8), 1),
        (lambda a: a / torch.linspace(1, 2, 6).view(6, 1), 1),
        (lambda a: F.prelu(a, torch.linspace(0.1, 0.4, 4)), 1),
        (lambda a: torch.tanh(a * torch.linspace(-1, 1, 4).view(4, 1, 1) - 0.2), 1),
        (lambda a: torch.tanh(a * torch.linspace(-1, 1, 8) - 0.2), 1),
        (lambda a: F.batch_norm(a, torch.arange(4.0), torch.arange(1.0, 5.0), torch.ones(4), torch.zeros(4)), 1),
        (lambda a: F.batch_norm(a.flatten(1)[:, :1], torch.tensor([0.3]), torch.tensor([2.0])), 1),
        (lambda a: a.movedim((1, 2), (2, 1)), 1),
        (lambda a: a.mean(), 1),
        (lambda a: a.mean(1), 1),
        (lambda a: a.mean((0, 3), keepdim=True), 1),
        (lambda a: F.interpolate(a, scale_factor=2), 1),
        (lambda a: F.interpolate(a, size=(9, 11), mode="nearest-exact"), 1),
        (lambda a: F.pad(a, (1, 2, 0, 1), mode="reflect"), 1),
        (lambda a: a.split((1, 3), 1)[1], 1),
        (lambda a: torch.stack([a, a.flip(1)], 1), 1),
        (lambda a: F.max_pool1d(a[0], 3, 2, 1), 1),
        (lambda a: F.avg_pool1d(a[0], 3, 2, 1), 1),
        (lambda a: F.adaptive_avg_pool1d(a[0], 4), 1),
        (lambda a: F.adaptive_avg_pool1d(a[0], 1), 1),
    ],
)
def test_operations_on_codes_are_at_most_a_step_off(function: Callable[..., Tensor], sides: int) -> None:
    given = [torch.randn(2, 4, 6, 8) for _ in range(sides)]
    module = of(function, *[(0.03, -5), (0.025, 11)][:sides])
    program, _ = lowered(module, *given)
    assert program.floats == ()
    assert float(steps_apart(module, 0.02, *given).max()) < 1.01


@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (1, 4, 1, 1), (2, 1, 6, 8), (6, 1), (4, 6, 8)])
@pytest.mark.parametrize("function", [torch.mul, torch.sub])
def test_a_gate_is_spread_over_its_image(shape: tuple[int, ...], function: Callable[..., Tensor]) -> None:
    module = of(function, (0.03, -5), (0.004, -128))
    given = torch.randn(2, 4, 6, 8), torch.rand(shape)
    assert lowered(module, *given)[0].floats == ()
    assert float(steps_apart(module, 0.02, *given).max()) < 1.01


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a.softmax(1),
        lambda a: F.avg_pool2d(a, 3, 2, 1, count_include_pad=False),
        lambda a: torch.where(a > 0, a, a.flip(1)),
        lambda a: torch.tanh(a + torch.linspace(-1, 1, 6).view(6, 1)),
        lambda a: F.adaptive_avg_pool2d(a, (4, 3)),
        lambda a: F.interpolate(a, scale_factor=2, mode="bilinear"),
        lambda a: a[:0] + torch.linspace(-1, 1, 0).view(0, 1, 1, 1),
    ],
)
def test_what_is_not_computed_on_codes_stays_and_is_named(function: Callable[..., Tensor]) -> None:
    x = torch.randn(2, 4, 6, 8)
    module = of(function, FINE)
    program, exported = lowered(module, x)
    assert program.floats
    torch.testing.assert_close(program.module(x), exported(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a * a.flip(1),
        lambda a: a.mean((2, 3)),
        lambda a: F.avg_pool2d(a, 2),
        lambda a: F.conv2d(a, coded(torch.ones(4, 4, 1, 1), 1.0, 0)),
    ],
)
def test_a_multiplier_that_float32_does_not_hold_is_none(function: Callable[..., Tensor]) -> None:
    """Of zero it would be no number."""
    x = torch.randint(-1, 2, (1, 4, 6, 8)) * 3e28
    module = of(function, (3e28, -5), result=(1e-30, 3))
    program, exported = lowered(module, x)
    assert not any("total" in str(node.target) or "code_" in str(node.target) for node in program.module.graph.nodes)
    assert "requantize" not in program.module.code
    assert torch.equal(program.module(x), exported(x))


def test_padding_with_nan_stays_in_float() -> None:
    program, _ = lowered(of(lambda a: F.pad(a, (1, 1), value=math.nan), FINE), torch.randn(2, 3))
    assert [told.partition(" at ")[0] for told in program.floats] == ["pad"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_values_of_other_floats_keep_their_type(dtype: torch.dtype) -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            codes = Q.quantize_per_tensor(x, 0.03, -5, -128, 127, torch.int8)
            value = Q.dequantize_per_tensor(codes, 0.03, -5, -128, 127, torch.int8, out_dtype=dtype)
            weight = Q.dequantize_per_channel(
                torch.ones(2, 3, dtype=torch.int8), torch.ones(2), None, 0, -127, 127, torch.int8, out_dtype=dtype
            )
            return F.linear(value, weight)

    x = torch.randn(4, 3)
    program, exported = lowered(Other(), x)
    found = program.module(x)
    assert found.dtype == dtype and torch.equal(found, exported(x))
    told, layer = program.floats
    assert "it gives other floats than float32" in told and "its weights are not float32" in layer


def test_ends_that_only_dequantise_has_clamp_nothing() -> None:
    class Ends(nn.Module):
        def forward(self, codes: Tensor) -> Tensor:
            return coded(Q.dequantize_per_tensor(codes, 0.03, 0, -10, 10, torch.int8), 0.03, 0, -10, 10)

    codes = torch.arange(-128, 128).to(torch.int8)
    program, exported = lowered(Ends(), codes)
    assert torch.equal(program.module(codes), exported(codes))


def test_unsigned_codes_are_the_same_numbers() -> None:
    """As who quantises for x86 writes them."""

    class Unsigned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = QuantisedConv(3, 5, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = coded(x, 0.03, 123, 0, 255, torch.uint8)
            return coded(torch.relu(self.layer(x)), 0.05, 2, 0, 255, torch.uint8)

    x, module = torch.randn(2, 3, 8, 8), Unsigned()
    program, exported = lowered(module, x)
    assert program.layers == 1 and program.floats == ()
    assert float(((program.module(x) - exported(x)) / 0.05).abs().max()) < 1.01


def test_sums_that_might_not_fit_stay_in_float() -> None:
    layer = QuantisedLinear(70000, 1)
    layer.codes.fill_(127)
    x = torch.randn(1, 70000)
    program, exported = lowered(Layer(layer), x)
    assert program.layers == 0 and program.floats
    torch.testing.assert_close(program.module(x), exported(x))


def test_an_image_without_a_batch_stays_in_float() -> None:
    x, module = torch.randn(4, 6, 6), Layer(QuantisedConv(4, 3, 3))
    program, exported = lowered(module, x)
    assert program.layers == 0 and program.floats
    torch.testing.assert_close(program.module(x), exported(x), rtol=0, atol=0.051)


@pytest.mark.parametrize(("least", "layers"), [(1, 1), (2, 0)])
def test_of_the_least_code_an_output_has_one_weight(least: int, layers: int) -> None:
    """Two products of -128 by -128 are more than 16 bits hold, in which kernels for some cores add them."""
    layer = QuantisedConv(4, 3, 3)
    layer.codes.view(3, -1)[1, :least] = -128
    x = torch.randn(1, 4, 6, 6)
    program, exported = lowered(Layer(layer), x)
    assert program.layers == layers and bool(program.floats) is not bool(layers)
    torch.testing.assert_close(program.module(x), exported(x), rtol=0, atol=0.051)


def test_what_gives_several_floats_is_named_and_what_is_always_the_same_is_not() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.LSTM(6, 6, batch_first=True), QuantisedLinear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.layer(x)[0].chunk(2, 1)
            return self.head(coded(torch.cat([second, first], 1), *FINE))

    (name,) = lowered(Recurrent(), torch.randn(2, 4, 6))[0].floats
    assert name.startswith("lstm")


def test_the_module_that_is_given_stays_as_it_was() -> None:
    x = torch.randn(1, 3, 8, 8)
    exported = torch.export.export(Layer(QuantisedConv(3, 5, 3)), (x,)).module()
    before = str(exported.graph)
    with_integers(exported)
    assert str(exported.graph) == before


def test_no_number_is_nan() -> None:
    assert OPERATORS.quantize(torch.tensor([math.nan, math.inf, -math.inf]), 10.0, 3, -128, 127).tolist() == [
        3,
        127,
        -128,
    ]


@settings(max_examples=25, deadline=None)
@given(
    scales=st.tuples(*[st.floats(1e-4, 10.0)] * 3),
    zeros=st.tuples(*[st.integers(-128, 127)] * 3),
    codes=st.tuples(*[st.integers(-128, 127)] * 2),
)
def test_sums_of_codes_are_at_most_a_step_off_the_real_sum(
    scales: tuple[float, ...], zeros: tuple[int, ...], codes: tuple[int, ...]
) -> None:
    given = [torch.full((1, 1), (code - zero) * scale) for code, zero, scale in zip(codes, zeros, scales, strict=False)]
    module = of(torch.add, *list(zip(scales, zeros, strict=True))[:2], result=(scales[2], zeros[2]))
    program, exported = lowered(module, *given)
    apart = (program.module(*given) - exported(*given)).abs() / scales[2]
    assert float(apart.max()) < 1.01


@given(st.floats(1e-3, 1e3), st.integers(-128, 127), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_clamping_numbers_and_clamping_codes_are_the_same(scale: float, zero: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    codes, values = Codes(scale, zero), torch.linspace(-2e4, 2e4, 101)
    narrow = codes.within(low, high)
    wanted = OPERATORS.quantize(values.clamp(low, high), codes.inverse, zero, -128, 127)
    assert torch.equal(OPERATORS.quantize(values, codes.inverse, zero, narrow.low, narrow.high), wanted)


def test_the_largest_of_codes_is_found_before_they_are_numbers() -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(coded(x, *FINE), 2)

    x = torch.randn(1, 3, 6, 6)
    program, exported = lowered(Pooled(), x)
    assert program.floats == () and torch.equal(program.module(x), exported(x))
