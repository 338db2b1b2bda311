"""What every test may rely on: a torchvision that imports, one seed, and no memory of the user's own settings."""

from __future__ import annotations

import pytest
import torch

# torchvision's registry build declares two operators in a library made for CUDA. Its models need only the
# declarations. The reference is kept: they go with it.
TORCHVISION_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    TORCHVISION_OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
