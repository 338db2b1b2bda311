"""What a trained classifier answers on images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...frontend.data.datasets import Images
from .batches import Batches

__all__ = ["accuracy", "answers"]

_BATCH = 256


def answers(module: nn.Module, images: Images, count: int = 0) -> Tensor:
    """The class that `module` gives each of `count` images (0: all; the same ones as in training with that many).

    Args:
        module: takes normalized images (N, 3, H, W) for any N, gives (N, classes).
        images: on which.

    Returns:
        (count,) int64.
    """
    batches = Batches.of(images, count, torch.device("cpu"))
    module.eval()
    with torch.inference_mode():
        return torch.cat(
            [module(batches.plain(start, _BATCH)[0]).argmax(1) for start in range(0, len(batches), _BATCH)]
        )


def accuracy(found: Tensor, images: Images) -> float:
    """Share of right ones among the `answers` on as many of the images, 0..1."""
    batches = Batches.of(images, len(found), torch.device("cpu"))
    return float((found == batches.labels).double().mean())
