"""What is rounded, and which values share a scale, on graphs of a few operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.quantization.preparation import prepared
from reconvene.passes.quantization.rounding import float_reasons, rounding_of
from tests.support.quantized import nodes, quantized, read_by, scales

pytest.importorskip("torchao", reason="pip install '.[int8]'")

IMAGES = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions with something between, which `forward` says."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.LazyConv2d(4, 1)
        self.norm = nn.LayerNorm(8)
        self.gain = nn.Parameter(torch.rand(4, 1, 1))
        self.between = between
        self.last(between(self, torch.zeros(1, 4, 8, 8)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.between(self, x))
        return result


def net(between: Callable[[Any, Tensor], Tensor]) -> Any:
    return quantized(Net(between).eval(), IMAGES)


@pytest.mark.parametrize(
    "clamp", [F.relu, F.relu6, F.hardtanh, lambda x: x.clamp(-1, 2), lambda x: x.clamp(min=0), nn.ReLU(inplace=True)]
)
def test_a_result_is_rounded_behind_its_clamp(clamp: Callable[[Tensor], Tensor]) -> None:
    module = net(lambda net, x: clamp(net.first(x)))
    first, last = nodes(module, "conv2d")
    (reader,) = first.users
    assert scales(first) == [None] and len(set(scales(reader))) == 1 and scales(reader)[0] is not None
    assert read_by(first)[0] is not None and read_by(last)[0] == scales(reader)[0]
    if clamp is F.relu:
        assert scales(reader)[0][1] == -128  # All 256 steps are for what a ReLU gives.


def test_the_last_result_and_what_leads_to_the_output_are_not_rounded() -> None:
    module = quantized(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Softmax(1)).eval(), IMAGES)
    assert scales(nodes(module, "conv2d")[0]) == [None]
    assert read_by(nodes(module, "softmax")[0]) == [None]


def test_a_clamp_is_not_folded_where_the_result_has_another_reader() -> None:
    module = net(lambda net, x: net.second((y := net.first(x)).relu()) + y)
    first = nodes(module, "conv2d")[0]
    relu = nodes(module, "relu")[0]
    assert None not in scales(first) and len(set(scales(first))) == 1
    assert read_by(relu) == [scales(first)[0]]
    assert scales(relu)[0] not in (None, scales(first)[0])  # One that is all for the positive half.


def test_a_residual_sum_reads_two_rounded_values_and_is_rounded_behind_its_relu() -> None:
    module = net(lambda net, x: F.relu(net.second(net.first(x).relu()) + net.first(x)))
    (total,) = nodes(module, "add")
    read = read_by(total)
    assert None not in read and read[0] != read[1]
    assert scales(total) == [None] and scales(nodes(module, "relu")[-1])[0] is not None


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_what_is_stored_stays_as_it_is_beside_a_rounded_value(name: str) -> None:
    module = net(lambda net, x: getattr(torch, name)(net.first(x), net.gain))
    (node,) = nodes(module, name)
    value, gain = read_by(node)
    assert value is not None and gain is None and scales(node)[0] is not None


def test_squeeze_and_excitation() -> None:
    module = net(lambda net, x: (y := net.first(x).relu()) * net.second(y.mean((2, 3), keepdim=True)).sigmoid())
    (product,), (mean,), (gate,) = nodes(module, "mul"), nodes(module, "mean"), nodes(module, "sigmoid")
    assert None not in read_by(product) and len(set(read_by(product))) == 2
    assert scales(mean)[0] is not None and scales(mean)[0] != read_by(mean)[0]
    assert read_by(gate)[0] is not None and scales(gate)[0] is not None


@pytest.mark.parametrize("function", [F.silu, F.hardswish, torch.sigmoid, F.gelu, torch.tanh])
def test_other_activations_are_float_between_rounded_values(function: Callable[[Tensor], Tensor]) -> None:
    module = net(lambda net, x: function(net.first(x)))
    first, last = nodes(module, "conv2d")
    assert scales(first)[0] is not None and read_by(last)[0] is not None and scales(first)[0] != read_by(last)[0]


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "pad": lambda x: F.pad(x, (1, 1, 0, 2)),
    "reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "reshape": lambda x: x.reshape(x.shape[0], 4, 4, 16),
    "permute": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "slice": lambda x: x[:, :, 1:7],
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "index": lambda x: x.index_select(1, torch.tensor([3, 1])),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: x.split([1, 3], 1)[1],
    "shuffle": lambda x: x.view(x.shape[0], 2, 2, 8, 8).transpose(1, 2).reshape(x.shape[0], 4, 8, 8),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "pixels": lambda x: F.pixel_shuffle(x, 2),
    "nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "contiguous": lambda x: x.transpose(2, 3).contiguous(),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_where_bytes_only_move_the_scale_is_shared(move: Callable[[Tensor], Tensor]) -> None:
    module = net(lambda net, x: move(net.first(x).relu()))
    (relu,), (_, last) = nodes(module, "relu"), nodes(module, "conv2d")
    assert scales(relu)[0] is not None and read_by(last)[0] == scales(relu)[0]


AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1),
    "pool": lambda x: F.avg_pool2d(x, 2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
}


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
def test_averages_have_a_scale_of_their_own(average: Callable[[Tensor], Tensor]) -> None:
    module = net(lambda net, x: average(net.first(x).relu()))
    (relu,), (_, last) = nodes(module, "relu"), nodes(module, "conv2d")
    assert read_by(last)[0] is not None and scales(relu)[0] is not None and read_by(last)[0] != scales(relu)[0]


@pytest.mark.parametrize("join", [lambda parts: torch.cat(parts, 1), lambda parts: torch.stack(parts, 1).flatten(1, 2)])
def test_a_concatenation_has_one_scale(join: Callable[[list[Tensor]], Tensor]) -> None:
    module = net(lambda net, x: join([F.max_pool2d(net.first(x).relu(), 3, 1, 1), 9 * net.second(x), net.first(x)]))
    joined = [*nodes(module, "cat"), *nodes(module, "stack")][0]
    found = {*read_by(joined), read_by(nodes(module, "conv2d")[-1])[0], *read_by(nodes(module, "max_pool2d")[0])}
    assert len(found) == 1 and None not in found


def test_a_concatenation_within_another_has_its_scale() -> None:
    def dense(net: Any, x: Tensor) -> Tensor:
        one = torch.cat([net.first(x), net.second(x)], 1)
        return torch.cat([one, net.second(one[:, 4:]) * 1], 1)

    module = net(dense)
    inner, outer = nodes(module, "cat")
    assert {*read_by(inner), *read_by(outer)} == {read_by(inner)[0]} and read_by(inner)[0] is not None


def test_padding_with_another_number_is_float() -> None:
    module = net(lambda net, x: F.pad(net.first(x), (1, 1), value=3.0))
    assert read_by(nodes(module, "pad")[0]) == [None]


def test_what_only_float_operators_read_is_not_rounded() -> None:
    """The residual stream of a transformer, and products with stored vectors."""
    module = net(lambda net, x: net.norm(net.first(x) + x * net.gain))
    assert read_by(nodes(module, "add")[0]) == [None, None] and read_by(nodes(module, "layer_norm")[0])[0] is None
    assert read_by(nodes(module, "conv2d")[-1])[0] is not None


def test_a_float_reader_gets_the_value_unrounded() -> None:
    module = net(lambda net, x: net.second(y := net.first(x)) + torch.softmax(y, 1) * 2)
    (soft,) = nodes(module, "softmax")
    assert read_by(soft) == [None] and soft.all_input_nodes == [nodes(module, "conv2d")[0]]


LAYERS: dict[str, tuple[nn.Module, Tensor]] = {
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), torch.randn(2, 4, 9)),
    "padding": (nn.Conv2d(4, 6, 3, padding="same"), IMAGES),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), IMAGES),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, bias=False), IMAGES),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), IMAGES),
    "transposed grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGES),
    "linear": (nn.Linear(8, 6), IMAGES),
}


@pytest.mark.parametrize(("layer", "inputs"), LAYERS.values(), ids=LAYERS)
def test_every_kind_of_layer(layer: nn.Module, inputs: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(layer).eval()
    module = quantized(model, inputs)
    weight, scale = module.get_buffer("0.weight"), module.get_buffer("0.weight_scale")
    assert weight.dtype is torch.int8 and weight.abs().max() == 127
    assert module.get_buffer("0.weight_zero_point").eq(0).all()
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    shape = [-1 if place == axis else 1 for place in range(weight.dim())]
    restored = weight.float() * scale.view(shape)
    assert ((restored - layer.weight).abs() <= 0.501 * scale.view(shape)).all()
    with torch.no_grad():
        assert (module(inputs) - model(inputs)).norm() < 0.02 * model(inputs).norm()


def test_products_with_stored_matrices_are_layers_and_others_are_not() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.bias = (nn.Parameter(torch.randn(*shape)) for shape in ((8, 5), (5, 3), (3,)))

        def forward(self, x: Tensor) -> Tensor:
            rows = (x @ self.one).relu()
            return torch.addmm(self.bias, rows, self.two) @ torch.mm(rows, self.two).t()

    torch.manual_seed(0)
    module = quantized(Products(), torch.randn(4, 8))
    assert len(nodes(module, "linear")) == 3 and len(nodes(module, "matmul")) == 1
    assert read_by(nodes(module, "matmul")[0]) == [None, None]
    assert module.get_buffer("one").shape == (5, 8)  # A layer's weight: outputs first.


def test_layers_that_cannot_be_rounded_say_why() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.volume, self.wide = nn.Conv3d(1, 4, 3, padding=1), nn.Linear(70_000, 2)
            self.narrow = nn.Linear(8, 8).double()

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            made = F.linear(x, x[0, 0])
            return self.volume(x[:, None]), self.wide(x.new_zeros(1, 70_000)), self.narrow(x.double()), made

    module = prepared(capture(Odd().eval(), (IMAGES,)))
    reasons = list(float_reasons(module, lambda name: None).values())
    assert ("wide", "it adds up 70000 products, and 32 bits hold the sum of 66000") in reasons
    assert ("narrow", "it computes in float64, and only float32 is rounded") in reasons
    assert any("conv3d has no form" in reason for _, reason in reasons)
    assert any("computed in every call" in reason for _, reason in reasons) and len(reasons) == 4


class Scores(nn.Module):
    """What comes from a layer, and what does not, given out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.layer(x).relu()
        return scores, scores.softmax(-1), x


def test_outputs_are_rounded_where_that_is_asked_for_and_they_come_from_integers() -> None:
    module = prepared(capture(Scores().eval(), (torch.randn(2, 8),)))
    (linear,), (relu,) = nodes(module, "linear"), nodes(module, "relu")
    output = module.graph.output_node()
    read = {asked: rounding_of(module, {}, outputs=asked).edges for asked in (False, True)}
    assert [node for _, node in read[False]] == [linear]
    assert read[True] == (*read[False], (relu, output))
