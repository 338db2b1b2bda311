"""Normalisation of every kind."""

from __future__ import annotations

import math

from ..draft import Draft
from ..program import Ref
from .layers import image
from .registry import recipe

EPSILON = 1e-3


def _affine(draft: Draft, *shape: int) -> tuple[Ref | None, Ref | None]:
    return draft.optional(*shape, scale=1.0), draft.optional(*shape)


def _statistics(draft: Draft, channels: int) -> tuple[Ref, Ref]:
    return draft.store(channels, kind="mean", scale=0.5), draft.store(channels, kind="variance")


@recipe("batch_norm", weight=10)
@recipe("native_batch_norm _native_batch_norm_legit_no_training", weight=2)
def batch_norm(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 1)
    x = draft.fed(x, 1, 60)
    channels = draft.shape(x)[1]
    affine, statistics = _affine(draft, channels), _statistics(draft, channels)
    if operator == "batch_norm":
        if draft.chance(5) and math.prod(draft.shape(x)) > channels:  # PyTorch has no statistics of a single value.
            return draft.call("batch_norm.default", x, *affine, None, None, True, 0.1, EPSILON, False)
        return draft.call("batch_norm.default", x, *affine, *statistics, False, 0.1, EPSILON, False)
    flags = (False,) if operator == "native_batch_norm" else ()
    return draft.items(draft.call(f"{operator}.default", x, *affine, *statistics, *flags, 0.1, EPSILON))[0]


@recipe("instance_norm", weight=2)
def instance_norm(draft: Draft, operator: str) -> Ref:
    x = image(draft, draft.pick((2, 1, 3)), 2)
    channels = draft.shape(x)[1]
    affine = _affine(draft, channels) if draft.chance(60) else (None, None)
    if draft.chance(40) or math.prod(draft.shape(x)[2:]) == 1:
        statistics = _statistics(draft, channels)
        return draft.call("instance_norm.default", x, *affine, *statistics, False, 0.1, EPSILON, False)
    return draft.call("instance_norm.default", x, *affine, None, None, True, 0.1, EPSILON, False)


@recipe("group_norm", weight=4)
def group_norm(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 1)
    x = draft.fed(x, 1, 60)
    channels = draft.shape(x)[1]
    groups = draft.pick([number for number in (2, 1, 4, 3, channels) if channels % number == 0])
    return draft.call("group_norm.default", x, groups, *_affine(draft, channels), EPSILON, False)


@recipe("layer_norm native_layer_norm rms_norm", weight=4)
def layer_norm(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    shape = draft.shape(x)[-draft.integer(1, min(2, draft.rank(x))) :]
    if operator == "rms_norm":
        return draft.call("rms_norm.default", x, shape, draft.optional(*shape, scale=1.0), EPSILON)
    made = draft.call(f"{operator}.default", x, shape, *_affine(draft, *shape), EPSILON)
    return draft.items(made)[0] if operator == "native_layer_norm" else made
