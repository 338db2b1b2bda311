"""Reshaping, permuting, spreading."""

from __future__ import annotations

import math

import torch

from ..draft import Draft
from ..program import Ref
from .elementwise import operand
from .registry import recipe


def _resized(draft: Draft, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The same number of entries in another shape: axes split, joined, or both."""
    sizes = list(shape)
    for _ in range(draft.integer(1, 2)):
        if draft.chance(50) and len(sizes) > 1:
            axis = draft.integer(0, len(sizes) - 2)
            sizes[axis : axis + 2] = [sizes[axis] * sizes[axis + 1]]
        elif sizes:
            axis = draft.integer(0, len(sizes) - 1)
            factors = [factor for factor in (2, 3, 4, 1) if sizes[axis] % factor == 0 and sizes[axis] > factor]
            if factors and len(sizes) < 6:
                factor = draft.pick(factors)
                pair = [factor, sizes[axis] // factor]
                sizes[axis : axis + 1] = pair[::-1] if draft.chance(40) else pair
    return tuple(sizes)


def _one_free(draft: Draft, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Now and then one size is left to torch."""
    if not shape or not draft.chance(25):
        return shape
    place = draft.integer(0, len(shape) - 1)
    return (*shape[:place], -1, *shape[place + 1 :])


@recipe("view reshape _unsafe_view view_as reshape_as flatten unflatten _reshape_alias", weight=9)
def reshapes(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    shape = draft.shape(x)
    if operator == "flatten":
        first = draft.integer(0, max(0, len(shape) - 2))
        return draft.call("flatten.using_ints", x, first, draft.integer(first, len(shape) - 1) if shape else 0)
    if operator == "unflatten":
        axis = draft.axis(x, 2)
        factor = draft.pick([factor for factor in (2, 3, 5, 1) if shape[axis] % factor == 0])
        sizes = (factor, shape[axis] // factor)
        return draft.call("unflatten.int", x, axis, _one_free(draft, sizes[::-1] if draft.chance(50) else sizes))
    if operator == "_reshape_alias":
        x = draft.call("clone.default", x, memory_format=torch.contiguous_format)
        target = _resized(draft, shape)
        strides = tuple(math.prod(target[place + 1 :]) for place in range(len(target)))
        return draft.call("_reshape_alias.default", x, target, strides)
    if operator in ("view_as", "reshape_as"):
        same = [ref for ref in draft.pool if draft.value(ref).numel() == draft.value(x).numel()]
        return draft.call(f"{operator}.default", x, draft.pick(same[::-1]))
    return draft.call(f"{operator}.default", x, _one_free(draft, _resized(draft, shape)))


@recipe("permute transpose swapaxes swapdims movedim moveaxis", weight=6)
def permutations(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 1)
    rank = draft.rank(x)
    if operator == "permute":
        left, order = list(range(rank)), []
        while left:
            order.append(left.pop(draft.integer(0, len(left) - 1)))
        return draft.call("permute.default", x, tuple(order))
    first, second = draft.integer(0, rank - 1), draft.integer(0, rank - 1)
    if draft.chance(40):
        second -= rank
    if operator in ("movedim", "moveaxis"):
        if rank > 2 and draft.chance(30):
            return draft.call(f"{operator}.intlist", x, (1, rank - 1), (rank - 1, 1))
        return draft.call(f"{operator}.int", x, first, second)
    return draft.call(f"{operator}.{'int' if operator == 'transpose' else 'default'}", x, first, second)


@recipe("t numpy_T mT mH adjoint", weight=2)
def turns(draft: Draft, operator: str) -> Ref:
    x = draft.of_rank(2) if operator in ("t", "numpy_T") else draft.operand(lambda value: value.dim() > 1)
    return draft.call(f"{operator}.default", x)


@recipe("squeeze unsqueeze", weight=3)
def unit_axes(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    rank = draft.rank(x)
    if operator == "unsqueeze":
        return draft.call("unsqueeze.default", x, draft.integer(-rank - 1, rank))
    axis = draft.integer(0, rank - 1) if rank else 0
    if rank and draft.chance(60):
        x = draft.call("mean.dim", x, (axis,), True)
    kind = draft.integer(0, 2)
    if kind == 0 or not rank:
        return draft.call("squeeze.default", x)
    return (
        draft.call("squeeze.dim", x, axis) if kind == 1 else draft.call("squeeze.dims", x, (axis, 0)[: 1 + (axis > 0)])
    )


@recipe("expand expand_as broadcast_to", weight=3)
def spreads(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    axis = draft.axis(x)
    small = draft.call("mean.dim", x, (axis,), True)
    if operator == "expand_as":
        return draft.call("expand_as.default", small, x)
    shape = list(draft.shape(x))
    shape[axis] = draft.pick((shape[axis], draft.width()))
    if draft.chance(25):
        shape.insert(0, draft.integer(1, 2))
    if operator == "expand" and draft.chance(40):
        shape = [size if place == axis + len(shape) - draft.rank(x) else -1 for place, size in enumerate(shape)]
        shape[: len(shape) - draft.rank(x)] = [2] * (len(shape) - draft.rank(x))
    return draft.call(f"{operator}.default", small, tuple(shape))


@recipe("aten.channel_shuffle", weight=2)
def shuffle(draft: Draft, operator: str) -> Ref:
    """Channels in turns from equal shares, in one call or as a reshape, a transposition and a reshape."""
    x = draft.operand(lambda value: value.dim() > 2)
    channels = draft.shape(x)[1]
    groups = draft.pick([number for number in range(2, channels + 1) if channels % number == 0] or [1])
    if draft.chance(30):
        return draft.call("channel_shuffle.default", x, groups)
    batch, _, *rest = draft.shape(x)
    split = draft.call("view.default", x, (batch, groups, channels // groups, *rest))
    return draft.call("reshape.default", draft.call("transpose.int", split, 1, 2), (batch, channels, *rest))
