"""Magnitude is the absolute value; what is pruned has none."""

from __future__ import annotations

import torch

from reconvene.passes.pruning.scores.magnitude import MAGNITUDE

from .small import FIRST, SECOND, request


def test_absolute_values() -> None:
    scores = MAGNITUDE.weigh(request())
    assert scores[FIRST].tolist() == [[1, 1], [2, 3]]
    assert scores[SECOND].tolist() == [[4, 5]]


def test_pruned_weights_have_none() -> None:
    scores = MAGNITUDE.weigh(request(masks={FIRST: torch.tensor([[True, True], [False, True]])}))
    assert scores[FIRST].tolist() == [[1, 1], [0, 3]]
