"""Sums, differences and products of two quantised values, or of one and of numbers that are always the same."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from .asking import Asking
from .operators import OPERATORS
from .scheme import Codes, rounded

__all__ = ["product_of_codes", "sum_of_codes"]

A = torch.ops.aten

_MOST_BITS = 21
"""Of the factors of a sum: their products with codes then fit in int32 together."""
_MOST_SUM = 2.0**29
"""Of a code and a constant: it fits in int32 with codes that are moved up, too."""

_SIGNS = {A.add.Tensor: 1, A.add_.Tensor: 1, A.sub.Tensor: -1, A.sub_.Tensor: -1, A.rsub.Tensor: -1}
"""Of the second operand; `rsub` has them the other way around."""
_PRODUCTS = (A.mul.Tensor, A.mul_.Tensor)
_QUOTIENTS = (A.div.Tensor, A.div_.Tensor)


def sum_of_codes(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """``s_a (a - z_a) + s_b (b - z_b)`` in steps of the result: factors are rounded to whole numbers of `2**-shift`.

    In int32, since a sum of products in float32 is fused on some machines and not on others.
    """
    if node.target not in _SIGNS:
        return None
    weights = [1.0, _SIGNS[node.target] * float(node.kwargs.get("alpha", 1))]  # type: ignore[arg-type]
    sides = list(node.args[:2])
    if node.target is A.rsub.Tensor:
        sides.reverse()
    for place in (0, 1):
        number = asking.constants.value(sides[place])
        if number is not None:
            return _with_constant(asking, node, codes, sides[1 - place], weights[1 - place], number * weights[place])
    found = _two(asking, node, sides)
    if found is None:
        return None
    (first, a), (second, b) = found[0]
    weights = weights[::-1] if found[1] else weights
    ratios = [side.scale * weight / codes.scale for side, weight in zip((first, second), weights, strict=True)]
    shift = _shift(ratios)
    if shift < 1:
        return None
    factors = [round(ratio * 2**shift) for ratio in ratios]
    offset = (1 << (shift - 1)) - first.zero * factors[0] - second.zero * factors[1] + (codes.zero << shift)
    target = OPERATORS.code_sum.default
    return asking.emit(node, target, a, b, factors, offset, shift, codes.low, codes.high)


def _shift(ratios: list[float]) -> int:
    """By how many bits factors for `ratios` are larger than these, so that all have `_MOST_BITS` at most."""
    largest = max(map(abs, ratios))
    if not 0 < largest < 2.0**_MOST_BITS:
        return 0
    shift = min(_MOST_BITS, _MOST_BITS - math.frexp(largest)[1])
    return shift - (round(largest * 2.0**shift) >= 2**_MOST_BITS)


def _with_constant(
    asking: Asking, node: fx.Node, codes: Codes, side: Any, weight: float, number: Tensor
) -> fx.Node | None:
    """Numbers that are always the same are whole numbers of `2**-shift` steps, one for each place."""
    found = _one(asking, node, side, number)
    if found is None:
        return None
    source, value = found
    ratio, steps = weight * source.scale / codes.scale, number.double() / codes.scale
    reach = 255 * abs(ratio) + float(steps.abs().max()) + 256
    shift = min(_MOST_BITS, int(math.log2(_MOST_SUM / reach))) if reach < _MOST_SUM else 0
    if shift < 1:
        return None
    factor = round(ratio * 2**shift)
    offsets = asking.constants.node(node, torch.round(steps * 2.0**shift).to(torch.int32))
    offset = (1 << (shift - 1)) - source.zero * factor + (codes.zero << shift)
    return asking.emit(
        node, OPERATORS.code_offset.default, value, offsets, factor, offset, shift, codes.low, codes.high
    )


def product_of_codes(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """Of images of one shape, or of one with a gate for each of its channels."""
    if node.target not in _PRODUCTS + _QUOTIENTS:
        return None
    number = asking.constants.value(node.args[1])
    if number is not None:
        return _scaled(asking, node, codes, node.args[0], number)
    if node.target in _QUOTIENTS or node.kwargs.get("rounding_mode") is not None:
        return None
    number = asking.constants.value(node.args[0])
    if number is not None:
        return _scaled(asking, node, codes, node.args[1], number)
    found = _two(asking, node, list(node.args[:2]))
    if found is None:
        return None
    (first, a), (second, b) = found[0]
    scale = rounded(first.scale * second.scale / codes.scale)
    if not math.isfinite(scale):
        return None
    target = OPERATORS.code_product.default
    return asking.emit(node, target, a, b, [first.zero, second.zero], scale, [codes.zero, codes.low, codes.high])


def _scaled(asking: Asking, node: fx.Node, codes: Codes, side: Any, number: Tensor) -> fx.Node | None:
    """By numbers that are always the same: each place has a scale of its own."""
    found = _one(asking, node, side, number) if node.kwargs.get("rounding_mode") is None else None
    if found is None:
        return None
    source, value = found
    factors = 1.0 / number.double() if node.target in _QUOTIENTS else number.double()
    scale = (factors * source.scale / codes.scale).float()
    if not bool(scale.isfinite().all()):
        return None
    known = asking.constants.node(node, scale)
    target = OPERATORS.code_scale.default
    return asking.emit(node, target, value, known, -source.zero, codes.zero, codes.low, codes.high)


def _one(asking: Asking, node: fx.Node, side: Any, number: Tensor) -> tuple[Codes, fx.Node] | None:
    """The codes of `side` in the shape of `node`, beside numbers that are spread to it."""
    known = asking.known(side)
    if known is None or number.numel() < 2:  # A single number is better off in a table.
        return None
    if number.dtype != torch.float32 or not bool(number.isfinite().all()):
        return None
    return known[0], _spread(asking, node, known[1], gates=False)


def _two(asking: Asking, node: fx.Node, sides: list[Any]) -> tuple[list[tuple[Codes, fx.Node]], bool] | None:
    """The codes of both sides, the first of the shape of `node`, the second too or a gate; and whether they are swapped."""
    found = [asking.known(side) for side in sides]
    if found[0] is None or found[1] is None:
        return None
    known = [side for side in found if side is not None]
    swapped = known[0][1].meta["val"].shape != node.meta["val"].shape
    if swapped:
        known.reverse()
    spread = [_spread(asking, node, side, gates=place == 1) for place, (_, side) in enumerate(known)]
    return [(codes, side) for (codes, _), side in zip(known, spread, strict=True)], swapped


def _spread(asking: Asking, node: fx.Node, codes: fx.Node, *, gates: bool) -> fx.Node:
    """`codes` in the shape of `node`; with `gates`, of an image one for each channel stay that."""
    shape = [int(extent) for extent in node.meta["val"].shape]
    if list(codes.meta["val"].shape) == shape:
        return codes
    own = [*[1] * (len(shape) - codes.meta["val"].dim()), *(int(extent) for extent in codes.meta["val"].shape)]
    if gates and len(shape) == 4 and own[1] == shape[1] and own[2:] == [1, 1]:
        shape = [*shape[:2], 1, 1]
    if len(own) != codes.meta["val"].dim():
        codes = asking.emit(node, A.reshape.default, codes, own)
    return codes if own == shape else asking.emit(node, A.expand.default, codes, shape)
