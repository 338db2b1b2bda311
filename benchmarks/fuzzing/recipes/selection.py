"""Slices, picked positions, repetitions, pixels and channels exchanged."""

from __future__ import annotations

from ..draft import Draft
from ..program import Ref
from .elementwise import operand
from .layers import image
from .registry import recipe


@recipe("slice narrow", weight=6)
def slices(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    axis = draft.axis(x, 2)
    size = draft.shape(x)[axis]
    start = draft.integer(0, size - 1)
    if operator == "narrow":
        return draft.call("narrow.default", x, axis, start, draft.integer(1, size - start))
    end = draft.pick((None, 2**63 - 1, size, draft.integer(start + 1, size)))
    return draft.call("slice.Tensor", x, axis, draft.pick((start, start - size)), end, draft.pick((1, 1, 2, 3)))


@recipe("index_select", weight=3)
def index_select(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    axis = draft.axis(x, 2)
    table = draft.store(draft.integer(1, 8), kind="index", high=draft.shape(x)[axis])
    return draft.call("index_select.default", x, axis, table)


@recipe("index", weight=3)
def rows(draft: Draft, operator: str) -> Ref:
    x = (
        draft.store(draft.integer(2, 7), draft.width())
        if draft.chance(50)
        else draft.operand(lambda value: value.dim() > 0)
    )
    axis = draft.integer(0, min(1, draft.rank(x) - 1))
    shape = draft.pick(((4,), (2, 3), (5,)))
    table = draft.store(*shape, kind="index", high=draft.shape(x)[axis])
    return draft.call("index.Tensor", x, (None,) * axis + (table,))


@recipe("roll flip", weight=3)
def turns(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    axis = draft.axis(x)
    if operator == "flip":
        return draft.call("flip.default", x, (axis,))
    if draft.rank(x) > 2 and draft.chance(30):
        return draft.call("roll.default", x, (1, 2), (draft.rank(x) - 2, draft.rank(x) - 1))
    return draft.call("roll.default", x, (draft.integer(-2, 4),), (axis,))


@recipe("repeat tile repeat_interleave", weight=4)
def repetitions(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    if operator == "repeat_interleave":
        return draft.call("repeat_interleave.self_int", x, draft.integer(1, 3), draft.axis(x))
    more = draft.pick((0, 0, 0, 1))
    times = [1] * (draft.rank(x) + more)
    for _ in range(draft.integer(1, 2)):
        times[draft.integer(0, len(times) - 1)] = draft.integer(1, 3)
    if operator == "tile" and draft.chance(30):
        times = times[1:]
    return draft.call(f"{operator}.default", x, tuple(times))


@recipe("select", weight=3)
def select(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 1)
    axis = draft.axis(x)
    size = draft.shape(x)[axis]
    return draft.call("select.int", x, axis, draft.integer(-size, size - 1))


@recipe("pixel_shuffle pixel_unshuffle", weight=4)
def pixels(draft: Draft, operator: str) -> Ref:
    x = image(draft, 2)
    channels, height, width = draft.shape(x)[1:]
    if operator == "pixel_unshuffle":
        if height % 2 or width % 2:
            x = draft.call("pad.default", x, (0, width % 2, 0, height % 2), "constant", 0.0)
        return draft.call("pixel_unshuffle.default", x, 2)
    if channels % 4:
        weight = draft.weight(draft.pick((4, 8, 12)), channels, 1, 1, fan_in=channels)
        x = draft.call("conv2d.default", x, weight, draft.optional(draft.shape(weight)[0]))
    return draft.call("pixel_shuffle.default", x, 2)
