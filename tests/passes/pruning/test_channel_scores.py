"""One number a channel from one number a weight."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from reconvene.passes.pruning.channel_scores import summed_scores

from ...support.models import view_of


def test_scores_of_what_makes_a_channel_are_added_or_measured_as_a_vector() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    group = view_of(model, (torch.zeros(2, 3, 5, 5),)).groups[0]
    first = torch.arange(12.0).reshape(4, 3, 1, 1) - 5
    scores = {"0.weight": first, "3.weight": torch.ones(2, 4, 1, 1) * 100}
    # Rows are -5 -4 -3, -2 -1 0, 1 2 3, 4 5 6; who reads a channel does not make it.
    assert summed_scores(group, scores).tolist() == [-12.0, -3.0, 6.0, 15.0]
    squares = [25 + 16 + 9, 4 + 1, 1 + 4 + 9, 16 + 25 + 36]
    assert np.allclose(summed_scores(group, scores, 2), np.sqrt(squares))
    assert summed_scores(group, {}).tolist() == [0.0] * 4
