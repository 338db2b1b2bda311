"""How layers are read: convolutions, products, normalisation, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .nodes import Array, Convolution, Foreign, Node, Normalization, Pool, Scalar, Transposed, Weights, turned
from .phases import has_kernels
from .precision import moves, takes
from .relax_calls import (
    Rule,
    as_rows,
    float_image,
    is_line,
    known_array,
    moved_image,
    node_for,
    shape_and_dtype,
    unrowed,
)

__all__ = ["LAYERS"]


_LAYOUTS = {"NCHW": ("OIHW", "NCHW"), "NCW": ("OIW", "NCW")}
"""Of images and of lines: those of the weights and of the result."""
_TRANSPOSED = {"NCHW": ("IOHW", "NCHW"), "NCW": ("IOW", "NCW")}
"""The same of transposed convolutions."""


def _convolution(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Of an image, or of a line as one of height 1."""
    data, kernel = arguments[0], known_array(arguments[1])
    attrs = call.attrs
    given = str(attrs.data_layout)
    layouts = str(attrs.kernel_layout), str(attrs.out_layout) or given
    if kernel is None or layouts != _LAYOUTS.get(given) or not _readable(data, given, float_image):
        return None
    kernel = _upright(kernel)
    weights = Weights(kernel.astype("float64"), np.zeros(kernel.shape[0]))
    detail = Convolution(weights, _pair(attrs.strides), _sides(attrs.padding), _pair(attrs.dilation), int(attrs.groups))
    return node_for("convolution", call, [data], detail)


def _upright(kernel: Array) -> Array:
    """A kernel of rows and columns; that of a line has one row."""
    return kernel.reshape(*kernel.shape[:2], *(1, *kernel.shape[2:])[-2:])


def _transposed(call: Any, arguments: Sequence[Any]) -> Node | None:
    """The same transposed. Relax has weights ``(I, O / groups, ...)``."""
    data, kernel = arguments[0], known_array(arguments[1])
    attrs, given = call.attrs, str(call.attrs.data_layout)
    layouts = str(attrs.kernel_layout), str(attrs.out_layout) or given
    if kernel is None or layouts != _TRANSPOSED.get(given) or not _readable(data, given, float_image):
        return None
    groups = int(attrs.groups)
    kernel = turned(_upright(kernel), groups).astype("float64")
    detail = Transposed(
        Weights(kernel, np.zeros(len(kernel))),
        _pair(attrs.strides),
        _sides(attrs.padding),
        _pair(attrs.dilation),
        groups,
    )
    return node_for("transposed", call, [data], detail) if has_kernels(detail) else None


def _readable(data: Any, layout: str, image: Callable[..., bool]) -> bool:
    """Whether it can be read as an image, which takes the types that `image` does."""
    if layout == "NCHW":
        return image(data)
    return is_line(data) and (takes if image is float_image else moves)(data.dtype)


def _pair(values: Any, absent: int = 1) -> tuple[int, int]:
    """Of rows and columns; of a line there is the second alone."""
    first, second = (absent, *map(int, values))[-2:]
    return first, second


def _sides(padding: Any) -> tuple[int, int, int, int]:
    """Top, left, bottom and right; those of a line are left and right."""
    before, after = np.array_split([int(width) for width in padding], 2)
    (top, left), (bottom, right) = _pair(before, 0), _pair(after, 0)
    return top, left, bottom, right


def _matmul(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Rows times known weights are a 1x1 convolution of one-pixel images, one for each row."""
    data, kernel = arguments[0], _known_matrix(*arguments)
    if kernel is None:
        return _product(call, arguments)
    if not isinstance(data, Node) or not takes(data.dtype) or len(data.shape) < 2 or 0 in data.shape:
        return None
    if str(kernel.dtype) != data.dtype:
        return None
    weights = Weights(kernel.T.astype("float64")[:, :, None, None], np.zeros(kernel.shape[1]))
    rows = as_rows(data)
    product = Node("convolution", [rows], (rows.shape[0], kernel.shape[1]), data.dtype, Convolution(weights))
    return unrowed(product, shape_and_dtype(call)[0])


def _known_matrix(data: Any, factor: Any) -> Array | None:
    """What a constant holds that all matrices of `data` are multiplied by, also where it was spelled out for each of them."""
    if isinstance(factor, Node) and factor.op == "foreign" and isinstance(data, Node):
        spread = factor.detail_as(Foreign).call.op.name == "relax.broadcast_to" and factor.shape[:-2] == data.shape[:-2]
        known = known_array(factor.inputs[0]) if spread else None
        if known is None or known.shape[-2:] != factor.shape[-2:] or known.size != math.prod(known.shape[-2:]):
            return None
        return known.reshape(known.shape[-2:])
    known = known_array(factor)
    return known if known is not None and known.ndim == 2 else None


def _product(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Matrices times matrices of one batch, as in attention."""
    left, right = arguments
    shape, dtype = shape_and_dtype(call)
    if not takes(dtype) or len(shape) < 2 or 0 in (*left.shape, *right.shape):
        return None
    if left.dtype != dtype or left.shape[:-2] != shape[:-2] or right.shape[:-2] != shape[:-2]:
        return None
    return node_for("product", call, [left, right], None)


def _softmax(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Along the last axis. Images of ``(N, C)`` are such rows too."""
    data = arguments[0]
    shape, dtype = shape_and_dtype(call)
    if not takes(dtype) or 0 in shape or not shape or int(call.attrs.axis) % len(shape) != len(shape) - 1:
        return None
    return node_for("softmax", call, [data], None)


def _batch_norm(call: Any, arguments: Sequence[Any]) -> tuple[Node, ...] | None:
    """Inference only: ``x * scale + shift``, worked out in float64."""
    data = arguments[0]
    known = [known_array(argument) for argument in arguments[1:5]]
    attrs = call.attrs
    if attrs.training or int(attrs.axis) != 1 or not float_image(data) or any(value is None for value in known):
        return None
    gamma, beta, mean, variance = (np.asarray(value, "float64") for value in known)
    scale = (gamma if attrs.scale else 1.0) / np.sqrt(variance + float(attrs.epsilon))
    shift = (beta if attrs.center else 0.0) - mean * scale
    channels = (1, -1, *[1] * (len(data.shape) - 2))
    scale, shift = scale.reshape(channels), shift.reshape(channels)
    factors = Node("constant", [], scale.shape, data.dtype, scale)
    offsets = Node("constant", [], shift.shape, data.dtype, shift)
    scaled = Node("scalar", [data, factors], data.shape, data.dtype, Scalar("multiply"))
    normal = Node("scalar", [scaled, offsets], data.shape, data.dtype, Scalar("add"))
    return normal, arguments[3], arguments[4]


def _group_norm(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Of an image, or of a line."""
    data, scale, shift = arguments[0], known_array(arguments[1]), known_array(arguments[2])
    attrs, rank = call.attrs, len(data.shape)
    over = sorted(int(axis) % rank for axis in attrs.axes)
    if scale is None or shift is None or int(attrs.channel_axis) % rank != 1 or over != list(range(2, rank)):
        return None
    if rank not in (3, 4) or 0 in data.shape or not takes(data.dtype):
        return None
    detail = Normalization(int(attrs.num_groups), float(attrs.epsilon), scale.reshape(-1), shift.reshape(-1))
    return node_for("normalize", call, [data], detail)


def _layer_norm(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Of rows along the last axis."""
    data, scale, shift = arguments[0], known_array(arguments[1]), known_array(arguments[2])
    if scale is None or shift is None or not isinstance(data, Node) or not takes(data.dtype) or 0 in data.shape:
        return None
    if [int(axis) % len(data.shape) for axis in call.attrs.axes] != [len(data.shape) - 1]:
        return None
    detail = Normalization(1, float(call.attrs.epsilon), scale.reshape(-1), shift.reshape(-1))
    return node_for("layer_norm", call, [data], detail)


def _pool(kind: str) -> Rule:
    def rule(call: Any, arguments: Sequence[Any]) -> Node | None:
        attrs = call.attrs
        plain = str(attrs.layout) in _LAYOUTS and _pair(attrs.dilation) == (1, 1)
        if not plain or not _readable(arguments[0], str(attrs.layout), moved_image if kind == "max" else float_image):
            return None
        window, stride = _pair(attrs.pool_size), _pair(attrs.strides)
        counts = kind == "average" and bool(attrs.count_include_pad)
        if counts and bool(attrs.ceil_mode):
            return None
        return node_for("pool", call, [arguments[0]], Pool(kind, window, stride, _sides(attrs.padding), counts))

    return rule


def _adaptive_average(call: Any, arguments: Sequence[Any]) -> Node | None:
    data, layout = arguments[0], str(call.attrs.layout)
    if layout not in _LAYOUTS or not _readable(data, layout, float_image):
        return None
    wanted, area = shape_and_dtype(call)[0][2:], data.shape[2:]
    if wanted == area:
        return data  # type: ignore[no-any-return]
    if any(have % want for have, want in zip(area, wanted, strict=True)):
        return None
    window = _pair([have // want for have, want in zip(area, wanted, strict=True)])
    if set(wanted) == {1}:
        return node_for("mean", call, [data], None)
    return node_for("pool", call, [data], Pool("average", window, window, (0, 0, 0, 0)))


def _mean(call: Any, arguments: Sequence[Any]) -> Node | None:
    return node_for("mean", call, [arguments[0]], None) if _over_pixels(call, arguments[0]) else None


def _over_pixels(call: Any, data: Any) -> bool:
    """Whether a reduction is over all pixels of an image, or of a line that is computed as one."""
    axes = [] if call.attrs.axis is None else sorted(int(a) % len(data.shape) for a in call.attrs.axis)
    return bool(axes) and axes == list(range(2, len(data.shape))) and float_image(data)


def _largest(call: Any, arguments: Sequence[Any]) -> Node | None:
    return node_for("largest", call, [arguments[0]], None) if _over_pixels(call, arguments[0]) else None


LAYERS: dict[str, Rule] = {
    "relax.nn.conv1d": _convolution,
    "relax.nn.conv2d": _convolution,
    "relax.nn.conv1d_transpose": _transposed,
    "relax.nn.conv2d_transpose": _transposed,
    "relax.matmul": _matmul,
    "relax.nn.batch_norm": _batch_norm,
    "relax.nn.group_norm": _group_norm,
    "relax.nn.layer_norm": _layer_norm,
    **{f"relax.nn.max_pool{axes}d": _pool("max") for axes in (1, 2)},
    **{f"relax.nn.avg_pool{axes}d": _pool("average") for axes in (1, 2)},
    **{f"relax.nn.adaptive_avg_pool{axes}d": _adaptive_average for axes in (1, 2)},
    "relax.mean": _mean,
    "relax.max": _largest,
    "relax.nn.softmax": _softmax,
}
"""By operator."""
