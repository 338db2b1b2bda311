"""How layers are read: convolutions, products, normalisation, pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .nodes import Array, Convolution, Foreign, Node, Pool, Scalar, Weights
from .precision import takes
from .relax_calls import Rule, as_rows, float_image, known_array, moved_image, node_for, shape_and_dtype, unrowed

__all__ = ["LAYERS"]


def _convolution(call: Any, arguments: Sequence[Any]) -> Node | None:
    data, kernel = arguments[0], known_array(arguments[1])
    attrs = call.attrs
    layouts = (str(attrs.data_layout), str(attrs.kernel_layout), str(attrs.out_layout) or "NCHW")
    if kernel is None or layouts != ("NCHW", "OIHW", "NCHW") or not float_image(data):
        return None
    weights = Weights(kernel.astype("float64"), np.zeros(kernel.shape[0]))
    top, left, bottom, right = (int(v) for v in attrs.padding)
    detail = Convolution(
        weights, _pair(attrs.strides), (top, left, bottom, right), _pair(attrs.dilation), int(attrs.groups)
    )
    return node_for("convolution", call, [data], detail)


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


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


def _pool(kind: str) -> Rule:
    def rule(call: Any, arguments: Sequence[Any]) -> Node | None:
        attrs = call.attrs
        plain = str(attrs.layout) == "NCHW" and _pair(attrs.dilation) == (1, 1)
        if not plain or not (moved_image if kind == "max" else float_image)(arguments[0]):
            return None
        top, left, bottom, right = (int(v) for v in attrs.padding)
        window, stride = _pair(attrs.pool_size), _pair(attrs.strides)
        counts = kind == "average" and bool(attrs.count_include_pad)
        if counts and bool(attrs.ceil_mode):
            return None
        return node_for("pool", call, [arguments[0]], Pool(kind, window, stride, (top, left, bottom, right), counts))

    return rule


def _adaptive_average(call: Any, arguments: Sequence[Any]) -> Node | None:
    data = arguments[0]
    if not float_image(data) or str(call.attrs.layout) != "NCHW":
        return None
    wanted = shape_and_dtype(call)[0][2:]
    if wanted == data.shape[2:]:
        return data  # type: ignore[no-any-return]
    if any(have % want for have, want in zip(data.shape[2:], wanted, strict=True)):
        return None
    window = (data.shape[2] // wanted[0], data.shape[3] // wanted[1])
    if wanted == (1, 1):
        return node_for("mean", call, [data], None)
    return node_for("pool", call, [data], Pool("average", window, window, (0, 0, 0, 0)))


def _mean(call: Any, arguments: Sequence[Any]) -> Node | None:
    data = arguments[0]
    axes = [] if call.attrs.axis is None else sorted(int(a) % len(data.shape) for a in call.attrs.axis)
    if axes != [2, 3] or not float_image(data):
        return None
    return node_for("mean", call, [data], None)


LAYERS: dict[str, Rule] = {
    "relax.nn.conv2d": _convolution,
    "relax.matmul": _matmul,
    "relax.nn.batch_norm": _batch_norm,
    "relax.nn.max_pool2d": _pool("max"),
    "relax.nn.avg_pool2d": _pool("average"),
    "relax.nn.adaptive_avg_pool2d": _adaptive_average,
    "relax.mean": _mean,
    "relax.nn.softmax": _softmax,
}
"""By operator."""
