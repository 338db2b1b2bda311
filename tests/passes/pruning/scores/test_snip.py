"""SNIP against values worked out by hand. With target t the loss is t y, so dL/dW2 = t h and dL/dW1 = t W2' x'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.scores.snip import SNIP

from .small import FIRST, SECOND, X, request, weighted_sum


def test_one_batch() -> None:
    scores = SNIP.weigh(request(batches=[((X,), torch.tensor([[2.0]]))], loss=weighted_sum))
    # dL/dW2 = 2 (-1, 8); dL/dW1 = 2 (4, -5)' (1, 2) = ((8, 16), (-10, -20)).
    assert scores[SECOND].tolist() == [[8, 80]]
    assert scores[FIRST].tolist() == [[8, 16], [20, 60]]


def test_batches_count_by_their_size_and_absolutely() -> None:
    pair = ((torch.cat([X, X]),), torch.tensor([[1.0], [1.0]]))
    single = ((X,), torch.tensor([[-2.0]]))
    scores = SNIP.weigh(request(inputs=(torch.cat([X, X]),), batches=[pair], loss=weighted_sum))
    assert scores[SECOND].tolist() == [[8, 80]]
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model.load_state_dict(dict(request().module.state_dict()))
    both = SNIP.weigh(request(model, batches=[pair, single], loss=weighted_sum))
    # Each batch's own score is (8, 80): the signs differ, and must not cancel.
    torch.testing.assert_close(both[SECOND], torch.tensor([[8.0, 80.0]]))


def test_pruned_weights_count_as_zero_in_the_loss() -> None:
    mask = {SECOND: torch.tensor([[False, True]])}
    scores = SNIP.weigh(request(masks=mask, batches=[((X,), torch.tensor([[1.0]]))], loss=weighted_sum))
    assert scores[FIRST].tolist() == [[0, 0], [10, 30]]
    assert scores[SECOND].tolist() == [[0, 40]]


def test_statistics_of_normalisation_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, 3, 4, 4)
    asked = request(model, (x,), batches=[((x,), torch.tensor([0, 1]))])
    SNIP.weigh(asked)
    assert not model[1].running_mean.any() and model[1].num_batches_tracked == 0
    assert model[0].weight.grad is None


def test_batches_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(InputError, match="cannot be computed on the batches") as caught:
        SNIP.weigh(request(batches=[((torch.zeros(1, 3),), torch.zeros(1, 1))], loss=weighted_sum))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not finite"):
        SNIP.weigh(request(batches=[((X * torch.inf,), torch.ones(1, 1))], loss=weighted_sum))
