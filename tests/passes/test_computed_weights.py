"""Weights that are computed from stored tensors: what decides about them sees them as layers do, and so do its masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import reconvene
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize

INPUTS = (torch.randn(2, 8),)


class Square(nn.Module):
    """A layer whose weight is computed, and as large as what it is computed from."""

    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head, self.made = nn.Linear(8, 16), nn.Linear(16, 2), made
        self.weight = nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(self.inner(x).relu(), self.made(self.weight)).relu())


MADE = {
    "transposed": lambda weight: weight.t(),
    "turned": lambda weight: weight.flip(0),
    "scaled": lambda weight: weight * 2,
    "standardised": lambda weight: (weight - weight.mean(1, keepdim=True)) / (weight.std(1, keepdim=True) + 1e-5),
}


@pytest.mark.parametrize("name", ["transposed", "turned", "scaled"])
def test_the_weights_that_stay_are_the_largest_of_what_the_layer_reads(name: str) -> None:
    model = Square(MADE[name])
    result = reconvene.prune(model, INPUTS, structure="unstructured", sparsity=0.75, ignore=["inner"])
    (got,) = (value for value in result.module.parameters() if value.shape == (16, 16))
    read = model.made(model.weight.detach())
    assert torch.equal(got != 0, read.abs() >= read.abs().flatten().sort().values[192])


@pytest.mark.parametrize("name", MADE)
def test_the_filters_that_stay_are_the_largest_of_what_the_layer_reads(name: str) -> None:
    model = Square(MADE[name])
    result = reconvene.prune(model, INPUTS, sparsity=0.5, ignore=["inner"])
    read = model.made(model.weight.detach())
    kept = result.plan.kept["head.weight"][1]
    assert set(kept.tolist()) == set(read.norm(dim=1).topk(8).indices.tolist()) and not result.report.refusals


def test_standardised_weights_keep_their_name_and_stay_dense_with_the_reason() -> None:
    model = Square(MADE["standardised"])
    assert "weight" in dict(canonicalize(capture(model.eval(), INPUTS)).named_parameters())
    zeros = {layer.name: layer for layer in reconvene.prune(model, INPUTS, structure="row-block:4").report.zeros}
    assert not zeros["weight"].zeros and "as standardised weights are" in zeros["weight"].reason
    with pytest.raises(InputError, match="as standardised weights are"):
        reconvene.prune(model, INPUTS, structure="row-block:4", ignore=["inner"])


def test_masks_of_parametrised_weights_are_there_before_others_are_computed() -> None:
    class Mirrored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.coder = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            weight = self.coder.weight
            return F.linear(F.linear(x, weight).relu(), weight.t())

    mask = torch.rand(4, 8) < 0.5
    found = reconvene.compact(Mirrored(), INPUTS, masks={"coder.weight": mask}).module
    weights = [value for value in found.parameters() if value.dim() == 2]
    assert len(weights) == 2 and torch.equal(weights[0], weights[1].t())
    assert torch.equal(weights[0] != 0, mask if weights[0].shape == mask.shape else mask.t())


@pytest.mark.parametrize("layer", [nn.LSTM(8, 16, num_layers=2), nn.GRU(8, 16), nn.RNN(8, 16)])
def test_zeros_of_recurrent_layers_are_found_where_they_are_a_parametrisation(layer: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = layer, nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)[0][-1])

    prune.l1_unstructured(layer, "weight_hh_l0", 0.75)
    model, inputs = Net().eval(), (torch.randn(3, 2, 8),)
    result = reconvene.compact(model, inputs)
    zeros = {found.name: found.zeros for found in result.report.zeros}
    rows = dict(result.module.named_parameters())["layer.weight_hh_l0"].shape[0]
    assert zeros["layer.weight_hh_l0"] == rows * 16 * 3 // 4
    assert torch.allclose(result.module(*inputs), model(*inputs), atol=1e-6)


def test_a_pruned_layer_that_is_called_twice_has_one_weight() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.again, self.head = nn.GRUCell(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            state = self.cell(x, self.cell(x))
            return self.head(self.again(self.again(state).relu()).relu())

    model = Twice().eval()
    for layer, name in ((model.cell, "weight_hh"), (model.again, "weight")):
        prune.l1_unstructured(layer, name, 0.5)
    result = reconvene.compact(model, INPUTS)
    assert {found.name: found.zeros for found in result.report.zeros} == {
        "cell.weight_ih": 0, "cell.weight_hh": 96, "again.weight": 32, "head.weight": 0,
    }  # fmt: skip
    assert torch.allclose(result.module(*INPUTS), model(*INPUTS), atol=1e-6)
