"""Quantise and dequantise in ONNX: ``QuantizeLinear`` and ``DequantizeLinear`` around float operators (QDQ), which engines look
for. Standard: onnx.ai/onnx/operators, opset 13 and later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .base.errors import InputError
from .quantized_operators import LIBRARY, is_quantized, load_quantized_operators

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["check_types", "settle_weights", "translations"]

_LIMITS = {torch.int8: (-128, 127), torch.uint8: (0, 255)}
"""Integers that quantise and dequantise have in all opsets with an axis."""
_SUMS = torch.int32
"""Biases may be of these; nothing is rounded to them."""


def check_types(module: torch.nn.Module) -> None:
    """Raises InputError for a graph that rounds to integers which ONNX has no quantise for, naming the node."""
    for part in module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        for node in part.graph.nodes:
            if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != LIBRARY:
                continue
            arguments = dict(
                zip((argument.name for argument in node.target._schema.arguments), node.args, strict=False)
            )
            dtype = {**arguments, **node.kwargs}.get("dtype")
            allowed = {*_LIMITS, *((_SUMS,) if "dequantize" in node.target.name() else ())}
            if dtype not in allowed:
                raise InputError(
                    f"'{node.name}' is of {str(dtype).removeprefix('torch.')}, and ONNX quantises to int8 and uint8; quantise"
                    " to these, or leave the ONNX file out"
                )


def translations(module: torch.nn.Module) -> dict[Callable[..., Any], Callable[..., Any]]:
    """What PyTorch's exporter is to write for the operators that quantise, beyond what it knows by itself: it forgets the range
    where that is narrower than the type's.
    """
    if not is_quantized(module):
        return {}
    load_quantized_operators()
    return {torch.ops.quantized_decomposed.quantize_per_tensor.default: _quantize}


def _quantize(input: Any, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: int) -> Any:
    """``QuantizeLinear``, and ``Clip`` of its integers to a range within the type's. `dtype` is a number of ONNX's."""
    import onnxscript
    from onnxscript import ir

    op: Any = onnxscript.opset18
    kind = ir.DataType(dtype)

    def whole(value: int) -> Any:
        return op.Constant(value=ir.tensor(value, dtype=kind))

    rounded = op.QuantizeLinear(input, op.Constant(value=ir.tensor(scale, dtype=ir.DataType.FLOAT)), whole(zero_point))
    if (quant_min, quant_max) in _LIMITS.values():
        return rounded
    return op.Clip(rounded, whole(quant_min), whole(quant_max))


def settle_weights(model: onnx_ir.Model) -> None:
    """Stores rounded weights the way round that they are read, and what each is dequantised with under its name.

    A product with a stored matrix is written as that of its transposed, dequantised weights. Engines would turn these once,
    which makes floats of them; turned integers under ``DequantizeLinear`` of another axis stay integers. And what PyTorch's
    exporter lets layers share, zero points above all, ONNX Runtime 1.31 fails to rewrite twice ("Attempt to replace the
    existing tensor", with ``session.x64quantprecision``).
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in list(model.graph):
        if node.op_type == "Transpose":
            _turn(model, node)
    RemoveUnusedNodesPass()(model)
    for node in list(model.graph):
        if node.op_type == "DequantizeLinear":
            _name(model, node)
    RemoveUnusedNodesPass()(model)


def _turn(model: onnx_ir.Model, transpose: onnx_ir.Node) -> None:
    import onnx_ir

    (value,), order = transpose.inputs, transpose.attributes.get_ints("perm")
    made = value.producer() if value is not None else None
    stored = made.inputs[0] if made is not None and made.op_type == "DequantizeLinear" else None
    if value is None or made is None or stored is None or stored.const_value is None or order is None:
        return
    turned = _stored(model, f"{stored.name}_{'x'.join(map(str, order))}", stored.const_value.numpy().transpose(order))
    axis = order.index(made.attributes.get_int("axis", 1) % len(order))
    again = onnx_ir.node(
        "DequantizeLinear", [turned, *made.inputs[1:]], {"axis": axis}, name=f"{transpose.name}_dequantized"
    )
    (given,) = again.outputs
    given.shape, given.type = transpose.outputs[0].shape, transpose.outputs[0].type
    model.graph.insert_before(transpose, again)
    onnx_ir.convenience.replace_all_uses_with(transpose.outputs[0], given)


def _name(model: onnx_ir.Model, dequantize: onnx_ir.Node) -> None:
    weight = dequantize.inputs[0]
    if weight is None or weight.const_value is None:
        return
    for index, what in ((1, "scale"), (2, "zero_point")):
        value = dequantize.inputs[index] if index < len(dequantize.inputs) else None
        if value is not None and value.const_value is not None:
            own = _stored(model, f"{weight.name}_{what}", value.const_value.numpy())
            dequantize.replace_input_with(index, own)


def _stored(model: onnx_ir.Model, name: str, array: np.ndarray) -> onnx_ir.Value:
    """An initializer of that content, and of that name unless another has it."""
    import onnx_ir

    while (other := model.graph.initializers.get(name)) is not None:
        content = other.const_value.numpy() if other.const_value is not None else None
        if content is not None and content.dtype == array.dtype and np.array_equal(content, array):
            return other
        name += "_"
    tensor = onnx_ir.tensor(array.copy(), name=name)
    made = onnx_ir.Value(
        name=name, type=onnx_ir.TensorType(tensor.dtype), shape=onnx_ir.Shape(array.shape), const_value=tensor
    )
    model.graph.register_initializer(made)
    return made
