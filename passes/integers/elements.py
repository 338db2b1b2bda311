"""Sums and products of two quantised values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from .asking import Asking
from .operators import OPERATORS
from .scheme import Codes, rounded

__all__ = ["product_of_codes", "sum_of_codes"]

A = torch.ops.aten

_MOST_BITS = 21
"""Of the factors of a sum: their products with codes then fit in int32 together."""


def sum_of_codes(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """``s_a (a - z_a) + s_b (b - z_b)`` in steps of the result: factors are rounded to whole numbers of `2**-shift`.

    In int32, since a sum of products in float32 is fused on some machines and not on others.
    """
    if node.target not in (A.add.Tensor, A.add_.Tensor) or node.kwargs.get("alpha", 1) != 1:
        return None
    sides = [asking.known(side) for side in node.args[:2]]
    if sides[0] is None or sides[1] is None or not _alike(node, sides[0][1], sides[1][1]):
        return None
    (first, a), (second, b) = sides[0], sides[1]
    ratios = [side.scale / codes.scale for side in (first, second)]
    shift = min(_MOST_BITS, _MOST_BITS - math.frexp(max(ratios))[1])
    if shift < 1:
        return None
    factors = [round(ratio * 2**shift) for ratio in ratios]
    if max(factors) >= 2**_MOST_BITS:
        shift, factors = shift - 1, [round(ratio * 2 ** (shift - 1)) for ratio in ratios]
    if shift < 1:
        return None
    offset = (1 << (shift - 1)) - first.zero * factors[0] - second.zero * factors[1] + (codes.zero << shift)
    target = OPERATORS.code_sum.default
    return asking.emit(node, target, a, b, factors, offset, shift, codes.low, codes.high)


def product_of_codes(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """Of images of one shape, or of one with a gate for each of its channels."""
    if node.target not in (A.mul.Tensor, A.mul_.Tensor):
        return None
    sides = [asking.known(side) for side in node.args[:2]]
    if sides[0] is None or sides[1] is None:
        return None
    if sides[0][1].meta["val"].shape != node.meta["val"].shape:
        sides.reverse()
    (first, a), (second, b) = sides[0], sides[1]  # type: ignore[misc]
    if not _alike(node, a, b) and not _gates(node, a, b):
        return None
    scale = rounded(first.scale * second.scale / codes.scale)
    target = OPERATORS.code_product.default
    return asking.emit(node, target, a, b, [first.zero, second.zero], scale, [codes.zero, codes.low, codes.high])


def _alike(node: fx.Node, *sides: fx.Node) -> bool:
    return all(side.meta["val"].shape == node.meta["val"].shape for side in sides)


def _gates(node: fx.Node, image: fx.Node, gate: fx.Node) -> bool:
    shape: Any = node.meta["val"].shape
    return image.meta["val"].shape == shape and len(shape) == 4 and gate.meta["val"].shape == (*shape[:2], 1, 1)
