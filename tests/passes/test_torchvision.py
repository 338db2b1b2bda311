"""The architectures exactness is shown on, and those that other libraries break: exact, and really smaller."""

from __future__ import annotations

import pytest
import torch

from ..support.models import Exactness, randomise
from ..support.shallow import SHALLOW

NO_CONSTANTS = {"convnext": 0.62, "vit": 0.73, "swin": 0.56, "skresnet": 0.44}
"""More of them stays under M1: a zero channel is no constant once the mean is subtracted from it, or paths are chosen by it."""

MOST_PARAMETERS_KEPT = {"shufflenet_v2": 0.46}
"""Half of the channels leave about a quarter of the weights, but depthwise kernels shrink in one direction only."""


@pytest.mark.parametrize("name", SHALLOW)
def test_compacted_equals_masked(name: str) -> None:
    build, shape = SHALLOW[name]
    torch.manual_seed(0)
    exactness = Exactness(randomise(build().eval()), (torch.randn(shape),))
    for kind in ("M1", "M2"):
        found = exactness.check(kind)
        stays = kind == "M1" and name in NO_CONSTANTS
        most = NO_CONSTANTS[name] if stays else MOST_PARAMETERS_KEPT.get(name, 0.37)
        assert found.after.parameters / found.before.parameters < most
        short = [group for group in found.groups if group.got < group.asked]
        assert kind == "M1" or not short
        expected = ("carries", "equally", "read by", "not constant any more") if stays else ("carries", "equally")
        assert all(any(word in reason for reason in group.reasons for word in expected) for group in short)
