"""Convolutions, linear layers and tables."""

from __future__ import annotations

import math

from ..draft import Draft, Rejected
from ..program import Ref
from .registry import recipe

__all__ = ["image", "tuned"]


def image(draft: Draft, rank: int, least: int = 1) -> Ref:
    """A value with a batch, channels and `rank` spatial axes, each at least so long."""
    fits = [ref for ref in draft.pool if draft.rank(ref) == rank + 2 and min(draft.shape(ref)[2:]) >= least]
    if fits and not draft.chance(5):
        return draft.operand(lambda value: value.dim() == rank + 2 and min(value.shape[2:]) >= least)
    return draft.of_rank(rank + 2)


def tuned(draft: Draft, rank: int, options: tuple[int, ...]) -> tuple[int, ...]:
    """One setting for each spatial axis, mostly the same one."""
    first = int(draft.pick(options))
    return tuple(first if not draft.chance(15) else int(draft.pick(options)) for _ in range(rank))


def _rank(operator: str) -> int:
    return int(operator[-2])


def _groups(draft: Draft, channels: int, width: int) -> tuple[int, int]:
    """Groups and output channels that go together."""
    kind = draft.integer(0, 5)
    if kind == 4:
        return channels, channels * draft.integer(1, 2)
    if kind == 5:
        return math.gcd(channels, width), width
    return 1, width


def _again(draft: Draft, channels: int, rank: int) -> Ref | None:
    """A kernel that is there already and fits without groups, so that it has two readers."""
    fits = [s for s in draft.stored if len(s.shape) == rank + 2 and s.shape[1] == channels and s.kind == "normal"]
    return Ref(draft.pick(fits).name) if fits and draft.chance(25) else None


def _masked(draft: Draft, weight: Ref) -> Ref:
    """Now and then the weight is computed: multiplied by a stored tensor, as pruning hooks do."""
    if not draft.chance(4):
        return weight
    return draft.call("mul.Tensor", weight, draft.store(*draft.shape(weight), kind="mean"))


@recipe("conv2d", weight=14)
@recipe("conv1d", weight=4)
@recipe("conv3d", weight=2)
def convolution(draft: Draft, operator: str) -> Ref:
    rank = _rank(operator)
    x = image(draft, rank)
    channels, sizes = draft.shape(x)[1], draft.shape(x)[2:]
    groups, width = _groups(draft, channels, draft.width())
    kernel = tuple(min(k, size + 2) for k, size in zip(tuned(draft, rank, (3, 1, 2)), sizes, strict=True))
    known = _again(draft, channels, rank)
    if known is not None:
        weight, groups, width = known, 1, draft.shape(known)[0]
    else:
        fan = channels // groups * math.prod(kernel)
        weight = draft.weight(width, channels // groups, *kernel, fan_in=fan)
    weight = _masked(draft, weight)
    bias = draft.optional(width)
    stride, dilation = tuned(draft, rank, (1, 1, 2)), tuned(draft, rank, (1, 1, 1, 2))
    if draft.chance(10):
        mode = draft.pick(("same", "valid"))
        return draft.call(f"{operator}.padding", x, weight, bias, (1,) * rank, mode, dilation, groups)
    if draft.chance(8) and rank == 2:
        x = draft.call("constant_pad_nd.default", x, (0, 1, 1, 0), draft.pick((0.0, 0.0, 0.3)))
    return draft.call(f"{operator}.default", x, weight, bias, stride, tuned(draft, rank, (1, 0, 2)), dilation, groups)


@recipe("convolution")
def general_convolution(draft: Draft, operator: str) -> Ref:
    rank = draft.pick((2, 1, 3))
    x = image(draft, rank)
    channels, width, transposed = draft.shape(x)[1], draft.width(), draft.chance(40)
    groups = draft.pick((1, math.gcd(channels, width)))
    kernel = tuned(draft, rank, (3, 1, 2))
    ways = (channels, width // groups) if transposed else (width, channels // groups)
    weight = draft.weight(*ways, *kernel, fan_in=channels * math.prod(kernel))
    stride, padding = tuned(draft, rank, (1, 2)), tuned(draft, rank, (0, 1))
    more = tuple(draft.integer(0, step - 1) for step in stride) if transposed else (0,) * rank
    bias = draft.optional(width)
    return draft.call("convolution.default", x, weight, bias, stride, padding, (1,) * rank, transposed, more, groups)


@recipe("conv_transpose2d", weight=4)
@recipe("conv_transpose1d conv_transpose3d")
def transposed_convolution(draft: Draft, operator: str) -> Ref:
    rank = _rank(operator)
    x = image(draft, rank)
    channels, width = draft.shape(x)[1], draft.width()
    groups = draft.pick((1, 1, math.gcd(channels, width), channels if width % channels == 0 else 1))
    kernel, stride = tuned(draft, rank, (3, 1, 2)), tuned(draft, rank, (1, 2))
    weight = draft.weight(channels, width // groups, *kernel, fan_in=channels // groups * math.prod(kernel))
    more = tuple(draft.integer(0, step - 1) for step in stride)
    overload = "default" if rank == 1 else "input"
    bias, padding = draft.optional(width), tuned(draft, rank, (0, 1))
    dilation = tuned(draft, rank, (1, 1, 2))
    return draft.call(f"{operator}.{overload}", x, weight, bias, stride, padding, more, groups, dilation)


@recipe("linear", weight=12)
def linear(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    if draft.rank(x) > 2 and draft.chance(35):
        x = draft.call("movedim.int", x, 1, -1)
    size = draft.shape(x)[-1]
    known = [s for s in draft.stored if len(s.shape) == 2 and s.shape[1] == size and s.kind == "normal"]
    weight = (
        Ref(draft.pick(known).name) if known and draft.chance(20) else draft.weight(draft.width(), size, fan_in=size)
    )
    weight = _masked(draft, weight)
    return draft.call("linear.default", x, weight, draft.optional(draft.shape(weight)[0]))


@recipe("embedding")
def embedding(draft: Draft, operator: str) -> Ref:
    known = [s for s in draft.stored if s.kind == "normal" and len(s.shape) == 2]
    table = (
        Ref(draft.pick(known).name) if known and draft.chance(30) else draft.store(draft.integer(2, 9), draft.width())
    )
    rows = draft.shape(table)[0]
    shape = draft.pick(((2, 4), (3,), (1, 2, 3)))
    indices = draft.input(shape, rows) if draft.chance(60) else draft.store(*shape, kind="index", high=rows)
    if draft.chance(30):
        return draft.call("embedding.default", table, indices, draft.integer(0, rows - 1))
    return draft.call("embedding.default", table, indices)


@recipe("embedding_bag")
def bags(draft: Draft, operator: str) -> Ref:
    """Bags of rows of a table, some of them empty; sums may be scaled row by row."""
    rows, count = draft.integer(2, 9), draft.integer(2, 6)
    table = draft.store(rows, draft.width())
    indices = draft.input((count,), rows) if draft.chance(60) else draft.store(count, kind="index", high=rows)
    starts = draft.store(draft.integer(1, 3), kind="index", high=count)
    offsets = draft.call(
        "sub.Tensor", draft.items(draft.call("sort.default", starts))[0], draft.call("min.default", starts)
    )
    mode = draft.integer(0, 2)
    scale = draft.store(count) if mode == 0 and draft.chance(40) else None
    found = draft.call("embedding_bag.padding_idx", table, indices, offsets, False, mode, False, scale, False, None)
    return draft.items(found)[0]


def need(condition: bool, reason: str) -> None:
    """Raises Rejected unless `condition`."""
    if not condition:
        raise Rejected(reason)
