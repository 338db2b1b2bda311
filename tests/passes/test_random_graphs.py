"""Random graphs with random masks: what is left computes what the masked original computes."""

from __future__ import annotations

import os

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ..support.models import Exactness, randomise, unstructured_masks
from ..support.random_graphs import STEPS, RandomNetwork

EXAMPLES = int(os.environ.get("RECONVENE_RANDOM_GRAPHS", "60"))

numbers = st.integers(0, 119)
steps = st.lists(st.tuples(st.sampled_from(STEPS), numbers, numbers, numbers), min_size=3, max_size=14)


def network(plan: list[tuple[str, int, int, int]], ending: int, seed: int) -> nn.Module:
    """A random network with random numbers everywhere, behind one convolution so that channels can go."""
    torch.manual_seed(seed)
    return randomise(RandomNetwork([("conv", 0, 4, 5), *plan], ending), seed)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 60, suppress_health_check=list(HealthCheck))
@given(steps, st.integers(0, 3), st.sampled_from(["M1", "M2", "single"]), st.integers(0, 1000), st.floats(0.1, 0.8))
def test_compacted_equals_masked(
    plan: list[tuple[str, int, int, int]], ending: int, kind: str, seed: int, share: float
) -> None:
    model = network(plan, ending, seed)
    masks = unstructured_masks(model, share, seed) if kind == "single" else kind
    exactness = Exactness(model, (torch.randn(2, 3, 8, 8),))
    exactness.check(masks, share=share, seed=seed, tolerance=1e-10)
