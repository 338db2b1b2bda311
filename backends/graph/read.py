"""Reads an imported Relax function into the backend's graph.

An operator without a rule here, or with options a rule does not take, stays what it is: a ``foreign`` node
that TVM legalises and `kernels.generic` schedules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import IRModule, relax

from .nodes import Array, Convolution, Foreign, Frame, Graph, Node, Pool, Reference, Reindex, Scalar, Weights, constant

__all__ = ["read_relax"]

Rule = Callable[[Any, Sequence[Any]], "Node | tuple[Node, ...] | None"]


def read_relax(module: IRModule) -> Graph:
    """The graph of ``main`` in `module`, whose parameters must be constants."""
    function = module["main"]
    values: dict[Any, Any] = dict(module.functions_items())
    inputs = []
    for parameter in function.params:
        shape, dtype = _shape_and_dtype(parameter)
        node = Node("input", [], shape, dtype, parameter, parameter.name)
        values[parameter] = node
        inputs.append(node)
    for block in function.body.blocks:
        for binding in block.bindings:
            values[binding.var] = _read(binding.value, values, binding.var)
    result = _argument(function.body.body, values)
    returns_tuple = isinstance(result, tuple)
    outputs = list(result) if isinstance(result, tuple) else [result]
    graph = Graph([], inputs, outputs, returns_tuple)
    graph.refresh()
    return graph


def _read(value: Any, values: dict[Any, Any], var: Any) -> Any:
    if not isinstance(value, relax.Call):
        return _argument(value, values)
    arguments = [_argument(argument, values) for argument in value.args]
    rule = RULES.get(_operator(value))
    result = rule(value, arguments) if rule else None
    return result if result is not None else _foreign(value, arguments, var)


def _operator(call: Any) -> str:
    return str(getattr(call.op, "name", ""))


def _argument(value: Any, values: dict[Any, Any]) -> Any:
    """The node, tuple of nodes, kernel, or untouched Relax expression (a shape, a number) that `value` stands for."""
    if isinstance(value, relax.Tuple):
        return tuple(_argument(field, values) for field in value.fields)
    if isinstance(value, relax.TupleGetItem):
        return _item(_argument(value.tuple_value, values), value.index, value)
    if isinstance(value, relax.Var | tvm.ir.GlobalVar):
        return values[value]
    if isinstance(value, tvm.ir.GenericConst):
        return constant(value.value.numpy())
    return value


def _item(source: Any, index: int, value: Any) -> Node:
    if isinstance(source, tuple):
        node: Node = source[index]
        return node
    shape, dtype = _shape_and_dtype(value)
    return Node("item", [source], shape, dtype, index)


def _shape_and_dtype(expression: Any) -> tuple[tuple[int, ...], str]:
    """Static shape and dtype; ``((), "tuple")`` for what is no tensor."""
    kind = expression.ty
    if not isinstance(kind, relax.TensorType):
        return (), "tuple"
    return tuple(int(extent) for extent in kind.shape), str(kind.dtype)


def _foreign(call: Any, arguments: Sequence[Any], var: Any) -> Node:
    """Keeps the call; in its arguments nodes become references into `inputs`, which passes may change."""
    shape, dtype = _shape_and_dtype(var)
    inputs: list[Node] = []

    def referenced(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(referenced(field) for field in argument)
        if isinstance(argument, Node):
            inputs.append(argument)
            return Reference(len(inputs) - 1)
        return argument

    detail = Foreign(call, tuple(referenced(argument) for argument in arguments))
    kernel = call.args[0].name_hint if _operator(call) == "relax.call_tir" else _operator(call)
    return Node("foreign", inputs, shape, dtype, detail, kernel)


def _result(op: str, call: Any, inputs: list[Node], detail: Any) -> Node:
    shape, dtype = _shape_and_dtype(call)
    return Node(op, inputs, shape, dtype, detail, _operator(call))


def _known(value: Any) -> Array | None:
    return value.detail if isinstance(value, Node) and value.op == "constant" else None


def _float_image(*values: Any) -> bool:
    return all(isinstance(value, Node) and value.is_image for value in values)


def _computed_image(value: Any) -> bool:
    """An image that is no constant: elementwise kernels take the layout of one, and a weight has none."""
    return _float_image(value) and value.op != "constant"


def _convolution(call: Any, arguments: Sequence[Any]) -> Node | None:
    data, kernel = arguments[0], _known(arguments[1])
    attrs = call.attrs
    layouts = (str(attrs.data_layout), str(attrs.kernel_layout), str(attrs.out_layout) or "NCHW")
    if kernel is None or layouts != ("NCHW", "OIHW", "NCHW") or not _float_image(data):
        return None
    weights = Weights(kernel.astype("float64"), np.zeros(kernel.shape[0]))
    top, left, bottom, right = (int(v) for v in attrs.padding)
    detail = Convolution(
        weights, _pair(attrs.strides), (top, left, bottom, right), _pair(attrs.dilation), int(attrs.groups)
    )
    return _result("convolution", call, [data], detail)


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _matmul(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Rows times known weights are a 1x1 convolution of one-pixel images, one for each row."""
    data, kernel = arguments[0], _known(arguments[1])
    if kernel is None or kernel.ndim != 2:
        return _product(call, arguments)
    if kernel.dtype != np.float32:
        return None
    if not isinstance(data, Node) or data.dtype != "float32" or len(data.shape) < 2 or 0 in data.shape:
        return None
    weights = Weights(kernel.T.astype("float64")[:, :, None, None], np.zeros(kernel.shape[1]))
    rows = _rows(data)
    product = Node("convolution", [rows], (rows.shape[0], kernel.shape[1]), "float32", Convolution(weights))
    return _unrowed(product, _shape_and_dtype(call)[0])


def _product(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Matrices times matrices of one batch, as in attention."""
    left, right = arguments
    shape, dtype = _shape_and_dtype(call)
    if dtype != "float32" or len(shape) < 2 or 0 in (*left.shape, *right.shape):
        return None
    if left.dtype != dtype or left.shape[:-2] != shape[:-2] or right.shape[:-2] != shape[:-2]:
        return None
    return _result("product", call, [left, right], None)


def _softmax(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Along the last axis. Images of ``(N, C)`` are such rows too."""
    data = arguments[0]
    shape, dtype = _shape_and_dtype(call)
    if dtype != "float32" or 0 in shape or not shape or int(call.attrs.axis) % len(shape) != len(shape) - 1:
        return None
    return _result("softmax", call, [data], None)


def _rows(node: Node) -> Node:
    """`node` as a matrix of its last axis, taking back a reshape from one."""
    if len(node.shape) == 2:
        return node
    shape = (math.prod(node.shape[:-1]), node.shape[-1])
    if node.op == "reshape" and node.inputs[0].shape == shape:
        return node.inputs[0]
    return Node("reshape", [node], shape)


def _unrowed(node: Node, shape: tuple[int, ...]) -> Node:
    return node if node.shape == shape else Node("reshape", [node], shape)


def _by_row(function: str, sides: Sequence[Any], shape: tuple[int, ...]) -> Node | None:
    """Arithmetic between a matrix that was reshaped to `shape` and a vector along the last axis, on the
    matrix.
    """
    for index in (0, 1):
        rows, vector = sides[index], _known(sides[1 - index])
        if vector is None or not isinstance(rows, Node) or rows.op != "reshape" or rows.shape != shape:
            continue
        matrix = rows.inputs[0]
        if (
            len(matrix.shape) != 2
            or matrix.shape[1] != shape[-1]
            or (vector.size > 1 and vector.size != vector.shape[-1])
        ):
            continue
        operands = [matrix, constant(vector.reshape(1, -1))]
        ordered = operands if index == 0 else operands[::-1]
        return _unrowed(Node("scalar", ordered, matrix.shape, "float32", Scalar(function)), shape)
    return None


def _batch_norm(call: Any, arguments: Sequence[Any]) -> tuple[Node, ...] | None:
    """Inference only: ``x * scale + shift``, worked out in float64."""
    data = arguments[0]
    known = [_known(argument) for argument in arguments[1:5]]
    attrs = call.attrs
    if attrs.training or int(attrs.axis) != 1 or not _float_image(data) or any(value is None for value in known):
        return None
    gamma, beta, mean, variance = (np.asarray(value, "float64") for value in known)
    scale = (gamma if attrs.scale else 1.0) / np.sqrt(variance + float(attrs.epsilon))
    shift = (beta if attrs.center else 0.0) - mean * scale
    channels = (1, -1, *[1] * (len(data.shape) - 2))
    factors = Node("constant", [], (), "float32", scale.reshape(channels))
    factors.shape = factors.detail.shape
    offsets = Node("constant", [], factors.shape, "float32", shift.reshape(channels))
    scaled = Node("scalar", [data, factors], data.shape, "float32", Scalar("multiply"))
    normal = Node("scalar", [scaled, offsets], data.shape, "float32", Scalar("add"))
    return normal, arguments[3], arguments[4]


def _pool(kind: str) -> Rule:
    def rule(call: Any, arguments: Sequence[Any]) -> Node | None:
        attrs = call.attrs
        plain = str(attrs.layout) == "NCHW" and _pair(attrs.dilation) == (1, 1)
        if not plain or not _float_image(arguments[0]):
            return None
        top, left, bottom, right = (int(v) for v in attrs.padding)
        window, stride = _pair(attrs.pool_size), _pair(attrs.strides)
        counts = kind == "average" and bool(attrs.count_include_pad)
        if counts and bool(attrs.ceil_mode):
            return None
        return _result("pool", call, [arguments[0]], Pool(kind, window, stride, (top, left, bottom, right), counts))

    return rule


def _adaptive_average(call: Any, arguments: Sequence[Any]) -> Node | None:
    data = arguments[0]
    if not _float_image(data) or str(call.attrs.layout) != "NCHW":
        return None
    wanted = _shape_and_dtype(call)[0][2:]
    if wanted == data.shape[2:]:
        return data  # type: ignore[no-any-return]
    if any(have % want for have, want in zip(data.shape[2:], wanted, strict=True)):
        return None
    window = (data.shape[2] // wanted[0], data.shape[3] // wanted[1])
    if wanted == (1, 1):
        return _result("mean", call, [data], None)
    return _result("pool", call, [data], Pool("average", window, window, (0, 0, 0, 0)))


def _mean(call: Any, arguments: Sequence[Any]) -> Node | None:
    data = arguments[0]
    axes = [] if call.attrs.axis is None else sorted(int(a) % len(data.shape) for a in call.attrs.axis)
    if axes != [2, 3] or not _float_image(data):
        return None
    return _result("mean", call, [data], None)


def _unary(function: str, *names: str) -> Rule:
    def rule(call: Any, arguments: Sequence[Any]) -> Node | None:
        data = arguments[0]
        scalar = Scalar(function, tuple(float(getattr(call.attrs, name)) for name in names))
        if isinstance(data, Node) and data.op == "reshape" and len(data.inputs[0].shape) == 2:
            matrix = data.inputs[0]
            return _unrowed(Node("scalar", [matrix], matrix.shape, "float32", scalar), data.shape)
        return _result("scalar", call, [data], scalar) if _computed_image(data) else None

    return rule


def _clip(call: Any, arguments: Sequence[Any]) -> Node | None:
    low, high = (float(getattr(bound, "value", math.nan)) for bound in arguments[1:3])
    if not _computed_image(arguments[0]) or math.isnan(low) or math.isnan(high):
        return None
    return _result("scalar", call, [arguments[0]], Scalar("clip", (low, high)))


def _binary(function: str) -> Rule:
    """Both sides images of one shape, or one a scalar, a channel vector or an ``(N, C, 1, 1)`` image."""

    def rule(call: Any, arguments: Sequence[Any]) -> Node | None:
        left, right = arguments
        shape, dtype = _shape_and_dtype(call)
        if dtype != "float32" or 0 in shape:
            return None
        by_row = _by_row(function, arguments, shape) if function != "divide" else None
        if by_row is not None or len(shape) not in (2, 4):
            return by_row
        if all(_known(side) is not None for side in arguments):
            return None
        sides = [_aligned(side, shape) for side in (left, right)]
        if sides[0] is None or sides[1] is None:
            return None
        name = function
        if name == "divide":
            inverse = _inverse(_known(sides[1]))
            if inverse is None:
                return None
            sides[1], name = constant(inverse), "multiply"
        return _result("scalar", call, [sides[0], sides[1]], Scalar(name))

    return rule


def _inverse(divisor: Array | None) -> Array | None:
    """One divided by what is known, if all of it and of the result are normal numbers."""
    if divisor is None or not np.all(divisor):
        return None
    inverse = 1.0 / divisor.astype("float64")
    limits = np.finfo("float32")
    normal = (abs(inverse) >= limits.tiny) & (abs(inverse) <= limits.max)
    return inverse.astype("float32") if bool(np.all(normal)) else None


def _aligned(side: Any, shape: tuple[int, ...]) -> Node | None:
    """`side` as a node that broadcasts along whole dimensions to `shape`, or None when a kernel cannot read
    it so.
    """
    if not isinstance(side, Node) or side.dtype != "float32":
        return None
    if side.op == "constant":
        value = side.detail
        value = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
        whole = value.size == 1 or (value.shape[1] == shape[1] and value.size == shape[1])
        return constant(value) if whole else None
    gate = (*shape[:2], *[1] * (len(shape) - 2))
    return side if side.shape in (shape, gate) else None


def _concat(call: Any, arguments: Sequence[Any]) -> Node | None:
    parts = arguments[0]
    axis = call.attrs.axis
    if not isinstance(parts, tuple) or axis is None or int(axis) % max(1, len(parts[0].shape)) != 1:
        return None
    if not _float_image(*parts) or any(part.op == "constant" for part in parts):
        return None
    return _result("concat", call, list(parts), None)


def _split(call: Any, arguments: Sequence[Any]) -> tuple[Node, ...] | None:
    data = arguments[0]
    if not _float_image(data) or int(call.attrs.axis) % len(data.shape) != 1:
        return None
    parts = []
    start = 0
    for kind in call.ty.fields:
        shape = tuple(int(extent) for extent in kind.shape)
        source = tuple(range(start, start + shape[1]))
        parts.append(Node("reindex", [data], shape, "float32", Reindex(source)))
        start += shape[1]
    return tuple(parts)


def _pad(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Constant padding and cropping of the image area.

    Not with an infinity: the kernel would write it into unused lanes too.
    """
    data, attrs = arguments[0], call.attrs
    widths, fill = [int(width) for width in attrs.pad_width], float(attrs.pad_value)
    if not _float_image(data) or len(widths) != 8 or any(widths[:4]) or not math.isfinite(fill):
        return None
    if str(attrs.pad_mode) != "constant" or 0 in _shape_and_dtype(call)[0]:
        return None
    top, bottom, left, right = widths[4:]
    return _result("frame", call, [data], Frame((top, left, bottom, right), fill=fill))


def _strided_slice(call: Any, arguments: Sequence[Any]) -> Node | None:
    """Along channels in any order, along rows and columns forwards."""
    data = arguments[0]
    shape, _ = _shape_and_dtype(call)
    kept = _kept(data, arguments[1:]) if _float_image(data) and 0 not in shape else None
    if kept is None or tuple(len(axis) for axis in kept) != shape or shape[0] != data.shape[0]:
        return None
    node: Node = data
    if kept[1] != range(data.shape[1]):
        node = Node("reindex", [node], (*shape[:2], *data.shape[2:]), "float32", Reindex(tuple(kept[1])))
    area = list(zip(kept[2:], data.shape[2:], strict=True))
    if any(axis.step < 0 for axis, _ in area):
        return None
    if any(axis != range(extent) for axis, extent in area):
        (rows, height), (columns, width) = area
        margins = (-rows.start, -columns.start, rows[-1] + 1 - height, columns[-1] + 1 - width)
        node = Node("frame", [node], shape, "float32", Frame(margins, (rows.step, columns.step)))
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
    shape, dtype = _shape_and_dtype(call)
    known = _known(data)
    if known is not None:
        return constant(known.reshape(shape))
    if not isinstance(data, Node) or dtype != "float32":
        return None
    if shape == data.shape:
        return data
    shuffle = _shuffle(data, shape)
    if shuffle is not None:
        return shuffle
    if data.op == "reshape" and data.inputs[0].shape == shape:
        return data.inputs[0]
    return _flat(call, data, shape) or _row_by_row(data, shape)


def _flat(call: Any, data: Node, shape: tuple[int, ...]) -> Node | None:
    """An image as one row of numbers, or such a row as an image of one pixel."""
    if not data.is_image or len(shape) not in (2, 4):
        return None
    batch, channels, height, width = data.image_shape
    if len(shape) == 2 and shape == (batch, channels * height * width):
        return _result("flatten", call, [data], None)
    if len(data.shape) == 2 and shape == (batch, channels, 1, 1):
        return _result("flatten", call, [data], None)
    return None


def _row_by_row(data: Node, shape: tuple[int, ...]) -> Node | None:
    """Between a matrix and the same rows along several axes: what rules for matrices look through."""
    rows = shape[-1:] == data.shape[-1:] and 2 in (len(shape), len(data.shape))
    return Node("reshape", [data], shape) if rows and 0 not in shape else None


def _shuffle(data: Node, shape: tuple[int, ...]) -> Node | None:
    """``view(N, G, C / G, H, W) . transpose(1, 2) . view(N, C, H, W)`` as a reordering of channels."""
    if data.op != "foreign" or data.name != "relax.permute_dims":
        return None
    call, opened = data.detail.call, data.inputs[0]
    axes = [] if call.attrs.axes is None else [int(a) for a in call.attrs.axes]
    if axes != [0, 2, 1, 3, 4] or opened.op != "foreign" or opened.name != "relax.reshape":
        return None
    source = opened.inputs[0]
    if source.shape != shape or not source.is_image or opened.shape[3:] != shape[2:]:
        return None
    order = np.arange(shape[1]).reshape(opened.shape[1:3]).T.reshape(-1)
    return Node("reindex", [source], shape, "float32", Reindex(tuple(int(c) for c in order)))


def _permute(call: Any, arguments: Sequence[Any]) -> Node | None:
    known = _known(arguments[0])
    if known is None:
        return None
    axes = None if call.attrs.axes is None else [int(a) for a in call.attrs.axes]
    return constant(np.transpose(known, axes))


RULES: dict[str, Rule] = {
    "relax.nn.conv2d": _convolution,
    "relax.matmul": _matmul,
    "relax.nn.batch_norm": _batch_norm,
    "relax.nn.max_pool2d": _pool("max"),
    "relax.nn.avg_pool2d": _pool("average"),
    "relax.nn.adaptive_avg_pool2d": _adaptive_average,
    "relax.mean": _mean,
    "relax.nn.relu": _unary("relu"),
    "relax.sigmoid": _unary("sigmoid"),
    "relax.tanh": _unary("tanh"),
    "relax.nn.silu": _unary("silu"),
    "relax.negative": _unary("negative"),
    "relax.abs": _unary("abs"),
    "relax.nn.gelu": _unary("gelu"),
    "relax.nn.gelu_tanh": _unary("gelu_tanh"),
    "relax.nn.softmax": _softmax,
    "relax.nn.leakyrelu": _unary("leaky_relu", "alpha"),
    "relax.clip": _clip,
    "relax.add": _binary("add"),
    "relax.subtract": _binary("subtract"),
    "relax.multiply": _binary("multiply"),
    "relax.divide": _binary("divide"),
    "relax.maximum": _binary("maximum"),
    "relax.minimum": _binary("minimum"),
    "relax.nn.pad": _pad,
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.reshape": _reshape,
    "relax.permute_dims": _permute,
}
"""Operators by name. `relax.nn.dropout` does not occur: export removes it in eval mode."""
