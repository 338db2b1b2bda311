"""Means of quantised values: sums of codes, and one multiplication."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from .asking import Asking
from .layers import pair
from .operators import OPERATORS
from .scheme import Codes, rounded

__all__ = ["pooled_codes"]

A = torch.ops.aten


def pooled_codes(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """The mean over an image, or over windows that all have equally many pixels."""
    known = asking.known(node.args[0]) if node.args else None
    if known is None or known[1].meta["val"].dim() != 4:
        return None
    source, image = known
    shape = image.meta["val"].shape
    if _over_images(node, shape):
        keepdim = node.meta["val"].dim() == 4
        sums, count = asking.emit(node, OPERATORS.total.default, image, keepdim), shape[2] * shape[3]
    elif (window := _windows(node, shape)) is not None:
        sums = asking.emit(node, OPERATORS.window_total.default, image, *window, source.zero)
        count = math.prod(window[0])
    else:
        return None
    scale = torch.full((shape[1],), rounded(source.scale / (count * codes.scale)))
    factors = asking.constants.node(node, scale)
    target = OPERATORS.requantize.default
    return asking.emit(node, target, sums, factors, 1, -count * source.zero, codes.zero, codes.low, codes.high)


def _over_images(node: fx.Node, shape: Sequence[int]) -> bool:
    if node.target is A.adaptive_avg_pool2d.default:
        return tuple(node.args[1]) == (1, 1)  # type: ignore[arg-type]
    if node.target is not A.mean.dim or node.kwargs.get("dtype") is not None:
        return False
    axes: Any = node.args[1] or ()  # None: over everything.
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _windows(node: fx.Node, shape: Sequence[int]) -> tuple[list[int], list[int], list[int]] | None:
    """Window, stride and padding; None where windows have different numbers of pixels."""
    if node.target is A.adaptive_avg_pool2d.default:
        wanted: Any = node.args[1]
        if any(extent % want for extent, want in zip(shape[2:], wanted, strict=True)):
            return None
        window = [extent // want for extent, want in zip(shape[2:], wanted, strict=True)]
        return window, window, [0, 0]
    if node.target is not A.avg_pool2d.default:
        return None
    given: Sequence[Any] = node.args
    defaults: Sequence[Any] = (None, [], [0], False, True, None)
    window, stride, padding, ceil, counts, divisor = [*given[1:], *defaults[len(given) - 1 :]]
    padding = pair(padding)
    if ceil or divisor is not None or (any(padding) and not counts):
        return None
    return pair(window), pair(stride or window), padding
