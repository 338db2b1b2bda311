"""SynFlow against values worked out by hand: R = 1' |W2| |W1| 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.pruning.scores.synflow import SYNFLOW
from reconvene.passes.pruning.weights import sparsify

from .small import FIRST, SECOND, request


def test_shares_of_paths() -> None:
    scores = SYNFLOW.weigh(request())
    # Columns of |W2| are (4, 5); rows of |W1| sum to (2, 5).
    assert scores[FIRST].tolist() == [[4, 4], [10, 15]]
    assert scores[SECOND].tolist() == [[8, 25]]
    assert scores[FIRST].dtype is torch.float64


def test_what_is_pruned_carries_no_path() -> None:
    scores = SYNFLOW.weigh(request(masks={SECOND: torch.tensor([[False, True]])}))
    assert scores[FIRST].tolist() == [[0, 0], [10, 15]]
    assert scores[SECOND].tolist() == [[0, 25]]


def test_every_layer_of_a_chain_has_the_same_sum() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 16, 5, bias=False),
    )  # fmt: skip
    sums = [value.sum().item() for value in SYNFLOW.weigh(request(model, (torch.randn(1, 3, 8, 8),))).values()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-12)


def test_normalisation_is_a_scale_whatever_its_mean() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, eps=0.0), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([2.0, -3.0]).reshape(2, 1, 1, 1))
        model[1].weight.copy_(torch.tensor([-5.0, 7.0]))
        model[1].running_mean.copy_(torch.tensor([100.0, -100.0]))
        model[1].running_var.copy_(torch.tensor([4.0, 1.0]))
    scores = SYNFLOW.weigh(request(model, (torch.zeros(1, 1, 1, 1),)))
    assert scores["0.weight"].flatten().tolist() == [2 * 5 / 2, 3 * 7]


def test_a_hundred_rounds_leave_every_layer_something_where_one_does_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2), nn.Linear(2, 64), nn.Linear(64, 64))
    module, inputs = capture(model, (torch.randn(1, 64),)), (torch.randn(1, 64),)
    many = sparsify(module, inputs, "synflow", 0.99)
    assert all(layer.zeros < layer.weights for layer in many.layers)
    kept = {layer.name: layer.weights - layer.zeros for layer in many.layers}
    assert sum(kept.values()) == 8448 - round(0.99 * 8448)


def test_sums_beyond_double_precision_are_refused() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)]).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e38)
    with pytest.raises(InputError, match="double precision"):
        SYNFLOW.weigh(request(model, (torch.zeros(1, 2, dtype=torch.float64),)))


def test_a_model_in_double_precision_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False)).double()
    before = model[0].weight.detach().clone()
    SYNFLOW.weigh(request(model, (torch.zeros(1, 3, dtype=torch.float64),)))
    assert torch.equal(model[0].weight, before)
