"""Rows of what outputs are sums of: times the kernel they are the outputs, for layers of every kind."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, fx, nn

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.layers import Layer
from reconvene.passes.operations import operations_of
from reconvene.passes.recovery.patches import Rows, drawn_rows, rows_there
from reconvene.passes.rules import layer_of
from reconvene.passes.rules.kernel_blocks import blocks_of
from reconvene.passes.running import Recorder
from reconvene.passes.values import Operation, attribute

LAYERS = {
    "linear": (nn.Linear(5, 7), (3, 4, 5)),
    "linear without a batch": (nn.Linear(5, 7), (5,)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 11)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)), (2, 4, 9, 8)),
    "conv2d in groups": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (2, 4, 6, 6)),
    "conv2d by depth": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (2, 4, 6, 5)),
    "conv2d same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)), (2, 4, 7, 7)),
    "conv2d valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 7, 7)),
    "conv2d without a batch": (nn.Conv2d(4, 6, 3), (4, 7, 7)),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=2, padding=1), (2, 2, 4, 5, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5, 6)),
    "transposed in groups": (nn.ConvTranspose2d(4, 6, (2, 3), stride=(1, 3), dilation=2, groups=2), (2, 4, 5, 4)),
    "transposed and cropped": (nn.ConvTranspose1d(4, 6, 2, stride=3, padding=2), (2, 4, 6)),
}


def called(module: nn.Module, shape: Sequence[int]) -> tuple[fx.GraphModule, Operation, Layer, Tensor, Tensor]:
    """The graph of a single layer in float64, its call, and what it reads and gives."""
    torch.manual_seed(0)
    x = torch.randn(*shape, dtype=torch.float64)
    graph = canonicalize(capture(module.double(), (x,)))
    op = next(op for op in operations_of(graph).values() if layer_of(op))
    layer = layer_of(op)
    assert layer is not None
    recorder = Recorder(graph, None)
    recorder.values((x,))
    return graph, op, layer, recorder.seen[layer.source.name], recorder.seen[op.node.name]


def product(graph: fx.GraphModule, layer: Layer, rows: Rows) -> Tensor:
    """What the layer gives for rows: rows x output channels."""
    kernel = blocks_of(attribute(graph, str(layer.weight.target)).detach(), layer).flatten(2)
    made = (rows.inputs @ kernel.transpose(1, 2)).transpose(0, 1).flatten(1)
    return made if layer.bias is None else made + attribute(graph, str(layer.bias.target)).detach()


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_the_kernel_are_the_outputs(name: str) -> None:
    graph, op, layer, source, output = called(*LAYERS[name])
    there = rows_there(layer, output)
    pieces = list(drawn_rows(op, layer, source, output, there, torch.Generator().manual_seed(0)))
    assert sum(len(piece.outputs) for piece in pieces) == there
    for piece in pieces:
        torch.testing.assert_close(product(graph, layer, piece), piece.outputs)
    # Every position once: all of them together are all outputs.
    found = torch.cat([piece.outputs for piece in pieces]).flatten().sort().values
    torch.testing.assert_close(found, output.flatten().sort().values)


def test_positions_are_drawn_in_every_image_without_repetition() -> None:
    _, op, layer, source, output = called(nn.Conv2d(1, 1, 1, bias=False), (3, 1, 4, 5))
    (piece,) = drawn_rows(op, layer, source, output, 22, torch.Generator().manual_seed(0))
    drawn = piece.outputs[:, 0].reshape(3, 8)
    for image, values in zip(output, drawn, strict=True):
        assert len(values.unique()) == 8 and torch.isin(values, image).all()


def test_many_rows_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconvene.passes.recovery.patches._MOST_NUMBERS", 500)
    graph, op, layer, source, output = called(*LAYERS["conv2d"])
    pieces = list(drawn_rows(op, layer, source, output, 40, torch.Generator().manual_seed(0)))
    assert [len(piece.outputs) for piece in pieces] == [20, 20]
    for piece in pieces:
        torch.testing.assert_close(product(graph, layer, piece), piece.outputs)


def test_no_rows_of_an_empty_batch() -> None:
    _, op, layer, source, output = called(*LAYERS["conv2d"])
    generator = torch.Generator().manual_seed(0)
    assert list(drawn_rows(op, layer, source[:0], output[:0], 10, generator)) == []
