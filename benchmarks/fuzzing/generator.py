"""Random programs: some inputs, steps by recipes, heads, outputs."""

from __future__ import annotations

import torch

from .choices import Choices
from .draft import Draft
from .program import Program, Ref, operands, pruned_of_dead, refs_in
from .recipes import FAMILIES, recipes
from .recipes.layers import convolution

__all__ = ["generate"]

_HEADS = ("flat", "flat", "conv", "flat", "conv", "mean", "flat", "last", "conv", "sum", "mean", "none")
_SHAPES = ("image", "image", "image", "tokens", "features", "signal", "volume", "rows")


def generate(choices: Choices, steps: tuple[int, int] = (2, 12), only: tuple[str, ...] = ()) -> Program:
    """A random program without masks, all of whose shapes fit.

    Args:
        choices: what decides.
        steps: the least and the largest number of steps, a step being the calls that one recipe adds.
        only: operators of which every graph gets one; all recipes take part beside them.
    """
    draft = Draft(choices)
    for _ in range(1 + draft.chance(25) + draft.chance(10)):
        _begin(draft)
    for place in range(choices.integer(*steps)):
        name = draft.pick(only) if only and place == 1 else _operator(draft)
        with draft.attempt():
            made = recipes()[name].make(draft, name.removeprefix("aten."))
            draft.pool += _floating(draft, [made] if isinstance(made, Ref) else list(made))
    outputs = _finish(draft)
    return pruned_of_dead(draft.finished(outputs))


def _operator(draft: Draft) -> str:
    """An operator: its family by weight, and each of a family's as often."""
    place = draft.integer(0, sum(family.weight for family in FAMILIES) - 1)
    for family in FAMILIES:
        place -= family.weight
        if place < 0:
            return str(draft.pick(family.operators))
    raise AssertionError("weights add up")


def _floating(draft: Draft, refs: list[Ref]) -> list[Ref]:
    return [ref for ref in refs if draft.value(ref).dtype.is_floating_point and draft.value(ref).numel()]


def _begin(draft: Draft) -> None:
    """An input and, mostly, a layer behind it, so that channels can go."""
    batch = draft.pick((2, 1, 3))
    kind = draft.pick(_SHAPES)
    channels = draft.pick((3, 2, 4, 1))
    sides = [draft.pick((6, 5, 8, 4, 7)) for _ in range(3)]
    shape = {
        "image": (batch, channels, sides[0], sides[0] if draft.chance(60) else sides[1]),
        "volume": (batch, channels, 4, sides[0] // 2, 3),
        "signal": (batch, channels, sides[0] + 3),
        "tokens": (batch, draft.pick((5, 4, 3)), draft.pick((6, 4, 8))),
        "features": (batch, draft.pick((6, 4, 8, 5))),
        "rows": (draft.pick((6, 4)),),
    }[kind]
    if draft.chance(6):
        x = draft.call("to.dtype", draft.input(shape, 256), torch.float64)
        x = draft.call("div.Tensor", x, 255.0)
        draft.pool.append(x)
    else:
        x = draft.input(shape)
    if draft.chance(10):
        return
    with draft.attempt():
        if kind in ("tokens", "features", "rows"):
            width = draft.width()
            made = draft.call(
                "linear.default", x, draft.weight(width, shape[-1], fan_in=shape[-1]), draft.optional(width)
            )
        else:
            made = convolution(draft, f"conv{len(shape) - 2}d")
        draft.pool.append(made)


def _finish(draft: Draft) -> list[Ref]:
    """Outputs: values that nothing reads, most of them behind a head, and now and then one in the middle."""
    read = {ref for call in draft.calls for ref in operands(call)}
    computed = [ref for ref in draft.pool if ref.name.startswith("v")]
    ends = [ref for ref in computed if ref not in read][-4:] or computed[-1:] or draft.pool[-1:]
    outputs = []
    for end in ends:
        made = end
        with draft.attempt():
            made = _headed(draft, end)
        outputs.append(made)
    if computed and draft.chance(8):
        outputs.append(draft.pick(computed))
    return list(dict.fromkeys(ref for output in outputs for ref in refs_in(output)))


def _headed(draft: Draft, x: Ref) -> Ref:
    """What reads an end of the graph: an output that shows a channel axis would keep all of its channels."""
    rank, shape = draft.rank(x), draft.shape(x)
    kind = draft.pick(_HEADS)
    if not rank or kind == "none":
        return x
    if kind == "sum":
        return draft.call("sum.dim_IntList", x, (draft.axis(x),), False)
    if kind == "conv" and rank in (3, 4, 5):
        kernel = tuple(min(size, draft.pick((3, 1))) for size in shape[2:])
        weight = draft.weight(3, shape[1], *kernel, fan_in=shape[1])
        return draft.call(
            f"conv{rank - 2}d.default", x, weight, draft.optional(3), (1,) * (rank - 2), draft.pick((1, 0))
        )
    if kind == "mean" and rank > 2:
        x = draft.call("mean.dim", x, tuple(range(2, rank)))
    elif kind == "last" and rank > 2:
        x = draft.call("movedim.int", x, 1, -1)
    elif rank > 2:
        x = draft.call("flatten.using_ints", x, 1)
    size = draft.shape(x)[-1]
    return draft.call("linear.default", x, draft.weight(3, size, fan_in=size), draft.optional(3))
