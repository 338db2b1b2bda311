"""What gives numbers other places: it gives their codes other places just as well."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from .asking import Asking
from .layers import along

__all__ = ["LARGEST", "MOVES", "PARTS", "is_move", "moved", "origin"]

A = torch.ops.aten

MOVES = frozenset(
    {
        A.view.default, A.reshape.default, A.flatten.using_ints, A.unflatten.int, A.permute.default, A.transpose.int,
        A.squeeze.default, A.squeeze.dim, A.squeeze.dims, A.unsqueeze.default, A.contiguous.default, A.clone.default,
        A.slice.Tensor, A.select.int, A.index_select.default, A.expand.default, A.alias.default, A.detach.default,
        A.pixel_shuffle.default, A.pixel_unshuffle.default, A.channel_shuffle.default, A.flip.default, A.roll.default,
        A.narrow.default, A.t.default, A.movedim.int, A.movedim.intlist, A.repeat.default, A.swapaxes.default,
    }
)  # fmt: skip
"""What gives numbers other places, from its first argument."""

_ALONG_AXES: dict[Any, int] = {
    A.upsample_nearest1d.vec: 1,
    A.upsample_nearest2d.vec: 2,
    A._upsample_nearest_exact1d.vec: 1,
    A._upsample_nearest_exact2d.vec: 2,
}
"""What takes each number of an axis some times, which is the same for all others: along so many last axes."""

_PLACES = frozenset({"reflect", "replicate", "circular"})
"""Ways to pad with numbers that are there."""

PARTS = frozenset({A.split.Tensor, A.split_with_sizes.default, A.chunk.default, A.unbind.int, A.tensor_split.sections})
"""What gives the parts of its first argument."""

LARGEST = frozenset({A.max_pool1d.default, A.max_pool2d.default})
"""What takes the largest of some numbers, whose code is the largest too."""


def is_move(node: fx.Node) -> bool:
    """Whether `node` gives its first argument's numbers, or the largest of some, in other places."""
    return node.target in MOVES or node.target in LARGEST or _axes(node) > 0 or _part_of(node) is not None


def moved(asking: Asking, node: fx.Node, source: fx.Node) -> fx.Node:
    """`node`, for which `is_move` holds, of the codes `source` of its first argument."""
    split = _part_of(node)
    if split is not None:
        return asking.emit(node, operator.getitem, asking.parts(split, source), node.args[1])
    if _axes(node):
        return _selected(asking, node, source, _axes(node))
    if node.target is A.max_pool1d.default:
        return _largest_in_line(asking, node, source)
    return asking.emit(node, node.target, source, *node.args[1:])


def origin(node: fx.Node) -> Any:
    """Whose numbers `node`, for which `is_move` holds, moves."""
    split = _part_of(node)
    return (node if split is None else split).args[0]


def _part_of(node: fx.Node) -> fx.Node | None:
    """The call of which `node` takes a part."""
    whole = node.args[0] if node.target is operator.getitem else None
    return whole if isinstance(whole, fx.Node) and whole.target in PARTS else None


def _axes(node: fx.Node) -> int:
    """Along how many last axes numbers are taken by their place; 0 where it is something else."""
    if node.target is A.pad.default and len(node.args) > 2 and node.args[2] in _PLACES:
        return len(node.args[1]) // 2  # type: ignore[arg-type]
    return _ALONG_AXES.get(node.target, 0)


def _selected(asking: Asking, node: fx.Node, source: fx.Node, axes: int) -> fx.Node:
    """Which place along an axis each comes from is what `node` itself makes of these places."""
    shape = source.meta["val"].shape
    first = len(shape) - axes
    for axis in range(first, len(shape)):
        sizes = [1] * first + [int(extent) for extent in shape[first:]]
        ramp = torch.arange(sizes[axis], dtype=torch.float64).view(
            [-1 if at == axis else 1 for at in range(len(sizes))]
        )
        with torch.no_grad():
            found: Tensor = node.target(ramp.expand(sizes).contiguous(), *node.args[1:], **node.kwargs)  # type: ignore[operator]
        places = found[tuple(slice(None) if at == axis else 0 for at in range(len(sizes)))].long()
        if not torch.equal(places, torch.arange(sizes[axis])):
            source = asking.emit(node, A.index_select.default, source, axis, asking.constants.node(node, places))
    return source


def _largest_in_line(asking: Asking, node: fx.Node, source: fx.Node) -> fx.Node:
    """A window of height 1 in an image of height 1."""
    given = [*node.args[1:], *([], [0], [1], False)[len(node.args) - 2 :]]
    window, stride, padding, dilation = (along(value, 1) for value in (given[0], given[1] or given[0], *given[2:4]))
    *rest, length = (int(extent) for extent in source.meta["val"].shape)
    image = asking.emit(node, A.reshape.default, source, [*rest, 1, length])
    options = ([1, *window], [1, *stride], [0, *padding], [1, *dilation], given[4])
    return asking.shaped(node, asking.emit(node, A.max_pool2d.default, image, *options))
