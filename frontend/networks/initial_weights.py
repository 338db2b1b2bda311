"""Initial weights and widths that the papers' networks share.

They follow open_lth, which both papers build on: Kaiming normal for convolutions and linear layers, BatchNorm weights
uniform in 0..1, BatchNorm biases 0.
"""

from __future__ import annotations

from torch import nn

from ..base.errors import InputError

__all__ = ["initialize", "scaled"]


def initialize(module: nn.Module) -> None:
    """Sets one layer's initial weights as open_lth does."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight)
        nn.init.zeros_(module.bias)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1. Raises InputError for a width that is not above 0."""
    if not width > 0:
        raise InputError(f"width {width} of the network is not above 0; 1.0 is the paper's width")
    return max(1, round(channels * width))
