"""The form that is quantised computes the same, and has no batch normalisation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.quantization.preparation import prepared
from tests.support.quantized import nodes, settled


def test_normalisation_is_folded_or_becomes_a_depthwise_convolution() -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 8, 8)
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(2), nn.BatchNorm1d(8, affine=False), nn.Conv1d(8, 4, 3), nn.BatchNorm1d(4),
    )  # fmt: skip
    settled(model, images)
    before = copy.deepcopy(model.state_dict())
    module = prepared(capture(model, (images,)))
    assert not nodes(module, "batch_norm")
    assert [len(nodes(module, name)) for name in ("conv2d", "conv1d")] == [3, 2]
    assert module.get_parameter("4.weight").shape == (8, 1, 1, 1)
    assert module.get_parameter("7.weight").shape == (8, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(module(images), model(images), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_one_whose_statistics_are_those_of_the_batch_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert len(nodes(prepared(capture(model, (torch.randn(4, 3, 5, 5),))), "batch_norm")) == 1


def test_values_by_name_become_values_by_position() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.aten.linear.default(x, weight=self.weight, bias=self.bias)

    rows = torch.randn(2, 3)
    model = Named()
    module = prepared(capture(model, (rows,)))
    (linear,) = nodes(module, "linear")
    assert len(linear.args) == 3 and not linear.kwargs
    assert torch.equal(module(rows), model(rows))


def test_layers_can_be_given_biases_of_zero() -> None:
    images = torch.randn(2, 3, 5, 5)
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ConvTranspose2d(4, 6, 2, bias=False)).eval()
    module = prepared(capture(model, (images,)), biases=True)
    assert [module.get_parameter(f"{place}.bias").numel() for place in (0, 1)] == [4, 6]
    torch.testing.assert_close(module(images), model(images))


def test_a_matrix_that_others_read_stays_beside_its_transposed() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(5, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.table + self.table.sum(0)

    rows = torch.randn(2, 5)
    module = prepared(capture(Shared(), (rows,)))
    assert module.get_parameter("table").shape == (5, 3) and module.get_parameter("table_transposed").shape == (3, 5)
    torch.testing.assert_close(module(rows), Shared.forward(module, rows))  # type: ignore[arg-type]
