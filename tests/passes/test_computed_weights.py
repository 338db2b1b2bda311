"""Weights that are computed from stored tensors: what decides about them sees them as layers do, and so do its masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
