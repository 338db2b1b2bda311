"""Which weights are scored, and batches made where there are no data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.scores import find_score, scored_weights, synthetic_batches


def test_convolutions_and_linear_layers_are_scored_once_each() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.up = nn.Conv2d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 2, 2)
            self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.up(self.conv(self.norm(self.conv(x)))).mean((2, 3)))

    weights = scored_weights(canonicalize(capture(Shared(), (torch.randn(1, 4, 8, 8),))))
    assert [(w.name, w.shape, w.convolution) for w in weights] == [
        ("conv.weight", (4, 4, 3, 3), True),
        ("up.weight", (4, 2, 2, 2), True),
        ("fc.weight", (3, 2), False),
    ]


def test_synthetic_batches_have_the_examples_shape_and_the_outputs_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    batches = synthetic_batches(model, (torch.randn(1, 3, 2, 2),), count=2, size=7, seed=3)
    assert [inputs[0].shape for inputs, _ in batches] == [(7, 3, 2, 2)] * 2
    assert all(targets.shape == (7,) and targets.max() < 5 for _, targets in batches)
    again = synthetic_batches(model, (torch.randn(1, 3, 2, 2),), count=2, size=7, seed=3)
    assert torch.equal(batches[1][0][0], again[1][0][0])
    assert not torch.equal(batches[0][0][0], batches[1][0][0])


def test_synthetic_batches_are_for_classifiers_of_numbers() -> None:
    with pytest.raises(InputError, match="classifiers"):
        synthetic_batches(lambda x: x.sum(), (torch.randn(2, 3),))
    with pytest.raises(InputError, match="floating-point"):
        synthetic_batches(nn.Embedding(4, 3), (torch.zeros(2, dtype=torch.int64),))


def test_an_unknown_score_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'wisdom'.*synflow"):
        find_score("wisdom")
