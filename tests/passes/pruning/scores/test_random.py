"""Random scores follow the generator."""

from __future__ import annotations

import torch

from reconvene.passes.pruning.scores.random import RANDOM

from .small import FIRST, request


def test_scores_follow_the_seed() -> None:
    first, same, other = (
        RANDOM.weigh(request(generator=torch.Generator().manual_seed(seed)))[FIRST] for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert first.shape == (2, 2) and first.min() >= 0 and first.max() < 1
