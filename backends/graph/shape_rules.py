"""How operators that move elements are read: what is joined, cut, padded, reshaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .nodes import IMAGES, Foreign, Frame, Node, Reindex, constant
from .precision import moves
from .relax_calls import Rule, is_line, known_array, moved_image, node_for, shape_and_dtype

__all__ = ["SHAPES"]


def _concat(call: Any, arguments: Sequence[Any]) -> Node | None:
    parts = arguments[0]
    axis = call.attrs.axis
    if not isinstance(parts, tuple) or axis is None or int(axis) % max(1, len(parts[0].shape)) != 1:
        return None
    if not _joins(parts) or any(part.op == "constant" for part in parts):
        return None
    return node_for("concat", call, list(parts), None)


def _joins(parts: Sequence[Node]) -> bool:
    """Whether all are images, or lines one of which was computed as an image."""
    if any(part.is_line for part in parts):
        return all(is_line(part) and moves(part.dtype) for part in parts)
    return moved_image(*parts)


def _split(call: Any, arguments: Sequence[Any]) -> tuple[Node, ...] | None:
    data = arguments[0]
    if not moved_image(data) or int(call.attrs.axis) % len(data.shape) != 1:
        return None
    parts = []
    start = 0
    for kind in call.ty.fields:
        shape = tuple(int(extent) for extent in kind.shape)
        source = tuple(range(start, start + shape[1]))
        parts.append(Node("reindex", [data], shape, data.dtype, Reindex(source)))
        start += shape[1]
    return tuple(parts)


def _pad(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Constant padding and cropping of the image area, or of a line's length.

    Not with an infinity: the kernel would write it into unused lanes too.
    """
    data, attrs = arguments[0], call.attrs
    widths, fill = [int(width) for width in attrs.pad_width], float(attrs.pad_value)
    if len(widths) not in (6, 8) or any(widths[:4]) or not math.isfinite(fill):
        return None
    if not (is_line(data) and moves(data.dtype) if len(widths) == 6 else moved_image(data)):
        return None
    if str(attrs.pad_mode) != "constant" or 0 in shape_and_dtype(call)[0]:
        return None
    top, bottom, left, right = (0, 0, *widths[4:])[-4:]
    return node_for("frame", call, [data], Frame((top, left, bottom, right), fill=fill))


def _strided_slice(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Along channels in any order, along rows and columns forwards."""
    data = arguments[0]
    shape, _ = shape_and_dtype(call)
    kept = _kept(data, arguments[1:]) if moved_image(data) and 0 not in shape else None
    if kept is None or tuple(len(axis) for axis in kept) != shape or shape[0] != data.shape[0]:
        return None
    node: Node = data
    if kept[1] != range(data.shape[1]):
        node = Node("reindex", [node], (*shape[:2], *data.shape[2:]), data.dtype, Reindex(tuple(kept[1])))
    area = list(zip(kept[2:], data.shape[2:], strict=True))
    if any(axis.step < 0 for axis, _ in area):
        return None
    if any(axis != range(extent) for axis, extent in area):
        (rows, height), (columns, width) = [(range(1), 1), *area][-2:]
        margins = (-rows.start, -columns.start, rows[-1] + 1 - height, columns[-1] + 1 - width)
        node = Node("frame", [node], shape, data.dtype, Frame(margins, (rows.step, columns.step)))
    return node


def _kept(data: Node, arguments: Sequence[Any]) -> list[range] | None:
    """What a slice keeps of every axis of `data`; None where that is not known."""
    literal = [_literals(argument) for argument in arguments]
    if len(literal) < 3 or any(values is None for values in literal):
        return None
    axes, begin, end = literal[0] or [], literal[1] or [], literal[2] or []
    step = (literal[3] if len(literal) > 3 else None) or [1] * len(axes)
    kept = [range(extent) for extent in data.shape]
    for axis, first, last, stride in zip(axes, begin, end, step, strict=True):
        kept[axis] = kept[axis][slice(first, last, stride)]
    return kept


def _literals(value: Any) -> list[int] | None:
    """The integers of a tuple or shape argument."""
    fields = value if isinstance(value, tuple) else getattr(value, "values", None)
    if fields is None:
        return None
    numbers = [getattr(field, "value", None) for field in fields]
    return None if any(n is None for n in numbers) else [int(n) for n in numbers if n is not None]


def _reshape(call: Any, arguments: Sequence[Any]) -> Node | None:
    data = arguments[0]
    shape, dtype = shape_and_dtype(call)
    known = known_array(data)
    if known is not None:
        return constant(known.reshape(shape))
    if not isinstance(data, Node) or not moves(dtype):
        return None
    if shape == data.shape:
        return data
    shuffle = _shuffle(data, shape)
    if shuffle is not None:
        return shuffle
    if data.op == "reshape" and data.inputs[0].shape == shape:
        return data.inputs[0]
    return _flat(call, data, shape) or _line(data, shape) or _row_by_row(data, shape)


def _flat(call: Any, data: Node, shape: tuple[int, ...]) -> Node | None:
    """An image as one row of numbers, or such a row as an image of one pixel."""
    if not data.is_image or len(shape) not in (2, 4):
        return None
    batch, channels, height, width = data.image_shape
    if len(shape) == 2 and shape == (batch, channels * height * width):
        return node_for("flatten", call, [data], None)
    if len(data.shape) == 2 and shape == (batch, channels, 1, 1):
        return node_for("flatten", call, [data], None)
    return None


def _row_by_row(data: Node, shape: tuple[int, ...]) -> Node | None:
    """Between a matrix and the same rows along several axes: what rules for matrices look through."""
    rows = shape[-1:] == data.shape[-1:] and 2 in (len(shape), len(data.shape))
    return Node("reshape", [data], shape, data.dtype) if rows and 0 not in shape else None


def _line(data: Node, shape: tuple[int, ...]) -> Node | None:
    """Between images of one row and lines ``(N, C, L)``: nothing moves in one that is computed as an image, and in another
    rules for images look through it.
    """
    if 0 in shape or 3 not in (len(shape), len(data.shape)) or not {len(shape), len(data.shape)} <= {2, 3, 4}:
        return None
    if data.op in IMAGES and (*shape[:2], *(1, 1, *shape[2:])[-2:]) == data.image_shape:
        return Node("reindex", [data], shape, data.dtype, Reindex(tuple(range(shape[1]))))
    line, image = sorted((data.shape, shape), key=len)
    beside = len(image) == 4 and image == (*line[:2], 1, *line[2:])
    return Node("reshape", [data], shape, data.dtype) if beside else None


def _shuffle(data: Node, shape: tuple[int, ...]) -> Node | None:
    """``view(N, G, C / G, H, W) . transpose(1, 2) . view(N, C, H, W)`` as a reordering of channels."""
    if data.op != "foreign" or data.name != "relax.permute_dims":
        return None
    call, opened = data.detail_as(Foreign).call, data.inputs[0]
    axes = [] if call.attrs.axes is None else [int(a) for a in call.attrs.axes]
    if axes != [0, 2, 1, 3, 4] or opened.op != "foreign" or opened.name != "relax.reshape":
        return None
    source = opened.inputs[0]
    if source.shape != shape or not source.is_image or opened.shape[3:] != shape[2:]:
        return None
    order = np.arange(shape[1]).reshape(opened.shape[1:3]).T.reshape(-1)
    return Node("reindex", [source], shape, source.dtype, Reindex(tuple(int(c) for c in order)))


def _permute(call: Any, arguments: Sequence[Any]) -> Node | None:
    known = known_array(arguments[0])
    if known is None:
        return None
    axes = None if call.attrs.axes is None else [int(a) for a in call.attrs.axes]
    return constant(np.transpose(known, axes))


SHAPES: dict[str, Rule] = {
    "relax.nn.pad": _pad,
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.permute_dims": _permute,
}
"""By operator."""
