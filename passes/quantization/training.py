"""Quantised networks that are trained: rounding that lets gradients pass, and back to integers afterwards.

``fake_quantize`` of PyTorch gives what quantise and dequantise give, and hands gradients on where nothing is cut off (the
straight-through estimator; B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018). Weights are parameters in float again, and their scales follow them in every
step; those of values stay what calibration found. A graph of these is like any other: it is trained by whatever trains graphs,
with masks or a teacher, and goes into files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule, captured_module, copied_graph
from ...frontend.quantized_operators import load_quantized_operators
from ..stored import holder_of
from ..values import Operation, attribute, operator_name
from .operators import LAYERS, OUT_AXIS
from .ranges import MOST, symmetric
from .rounds import rounds
from .scales import bias_floor, name_scales

__all__ = ["integer_layers", "rounded", "trainable"]

_VALUES, _WEIGHTS = "aten.fake_quantize_per_tensor_affine", "aten.fake_quantize_per_channel_affine"
_LEAST = 2.0**-100


def trainable(quantized: CapturedModule) -> CapturedModule:
    """A quantised network of ours as one that can be trained; the argument is not changed.

    Weights begin at what their integers stand for.
    """
    graph = copied_graph(quantized.graph)
    tensors = _tensors(quantized, graph)
    for node in list(graph.nodes):
        kind = rounds(node)
        if kind == "dequantize_per_tensor" and rounds(node.args[0]) == "quantize_per_tensor":
            source = node.args[0].args[0]
            with graph.inserting_before(node):
                made = graph.call_function(
                    torch.ops.aten.fake_quantize_per_tensor_affine.default, (source, *node.args[1:5])
                )
            _replace(node, made)
        elif kind == "dequantize_per_channel":
            _replace(node, _fake_weight(quantized, graph, node, tensors))
    return _made(graph, tensors, quantized)


def _fake_weight(module: CapturedModule, graph: fx.Graph, node: fx.Node, tensors: dict[str, Tensor]) -> fx.Node:
    """The weight in float, rounded by the scales that it has at the time."""
    stored, scale, zero, axis = (Operation(node)[name] for name in ("input", "scales", "zero_points", "axis"))
    name = str(stored.target)
    whole, steps = attribute(module, name), attribute(module, str(scale.target))
    shape = [-1 if place == axis else 1 for place in range(whole.dim())]
    tensors[name] = torch.nn.Parameter(whole.float() * steps.view(shape))
    tensors[str(zero.target)] = torch.zeros_like(steps, dtype=torch.int32)
    zero.meta["val"] = zero.meta["val"].new_empty(steps.shape, dtype=torch.int32)
    stored.meta["val"] = stored.meta["val"].new_empty(whole.shape, dtype=torch.float32)
    rest = [place for place in range(whole.dim()) if place != axis]
    aten = torch.ops.aten
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (aten.detach.default, ()), (aten.abs.default, ()), (aten.amax.default, (rest,)),
        (aten.div.Tensor, (float(MOST),)), (aten.clamp_min.default, (_LEAST,)),
    ]  # fmt: skip
    value = stored
    with graph.inserting_before(node):
        for target, arguments in calls:
            value = graph.call_function(target, (value, *arguments))
            shape_now = (
                steps.shape if target in (aten.div.Tensor, aten.clamp_min.default, aten.amax.default) else whole.shape
            )
            value.meta["val"] = stored.meta["val"].new_empty(shape_now)
        fake = aten.fake_quantize_per_channel_affine.default
        return graph.call_function(fake, (stored, value, zero, axis, -MOST, MOST))


def rounded(module: CapturedModule) -> CapturedModule:
    """A network of `trainable`, trained since, with integer weights and operators that round; the argument is not changed.

    Raises:
        InputError: a weight is not finite.
    """
    load_quantized_operators()
    graph = copied_graph(module.graph)
    tensors = _tensors(module, graph)
    for node in list(graph.nodes):
        if node.op == "call_function" and operator_name(node) in LAYERS:
            weight = Operation(node)["weight"]
            if isinstance(weight, fx.Node) and weight.op == "call_function" and operator_name(weight) == _WEIGHTS:
                _integer_weight(graph, node, weight, tensors)
    operators = torch.ops.quantized_decomposed
    for node in list(graph.nodes):
        if node.op == "call_function" and operator_name(node) == _VALUES:
            source, *numbers = node.args
            with graph.inserting_before(node):
                whole = graph.call_function(operators.quantize_per_tensor.default, (source, *numbers, torch.int8))
                made = graph.call_function(operators.dequantize_per_tensor.default, (whole, *numbers, torch.int8))
            whole.meta = {**node.meta, "val": node.meta["val"].new_empty(node.meta["val"].shape, dtype=torch.int8)}
            _replace(node, made)
    graph.eliminate_dead_code()
    return _made(graph, tensors, module)


def integer_layers(module: fx.GraphModule) -> list[tuple[str, str]]:
    """Name and operator of every layer with integer weights, in order."""
    found = []
    for node in module.graph.nodes:
        if node.op == "call_function" and operator_name(node) in LAYERS:
            weight = Operation(node)["weight"]
            if rounds(weight) == "dequantize_per_channel":
                name = str(weight.args[0].target).removesuffix(".weight")
                found.append((name, operator_name(node).removeprefix("aten.")))
    return found


def _integer_weight(graph: fx.Graph, layer: fx.Node, fake: fx.Node, tensors: dict[str, Tensor]) -> None:
    """Puts int8 weights with their scales in place of fake ones, for all layers that read them."""
    stored, axis = fake.args[0], fake.args[3]
    assert isinstance(stored, fx.Node) and isinstance(axis, int)
    name = str(stored.target)
    weight = tensors[name].detach()
    if not bool(weight.isfinite().all()):
        raise InputError(f"the weights of '{name}' are not finite; train again, with a lower rate")
    floors = [floor for user in fake.users if (floor := _floor(user, tensors, weight)) is not None]
    scales = symmetric(weight, axis, torch.stack(floors).amax(0) if floors else None)
    shape = [-1 if place == axis else 1 for place in range(weight.dim())]
    names = name_scales(name)
    tensors[name] = (weight / scales.view(shape)).round().clamp(-MOST, MOST).to(torch.int8)
    tensors[names.scale], tensors[names.zero] = scales, torch.zeros_like(scales, dtype=torch.int64)
    example = stored.meta["val"]
    with graph.inserting_before(fake):
        readers = [graph.get_attr(each) for each in (name, names.scale, names.zero)]
        for reader in readers:
            value = tensors[str(reader.target)]
            reader.meta["val"] = example.new_empty(tuple(value.shape), dtype=value.dtype)
        target = torch.ops.quantized_decomposed.dequantize_per_channel.default
        made = graph.call_function(target, (*readers, axis, -MOST, MOST, torch.int8))
    _replace(fake, made)


def _floor(layer: fx.Node, tensors: dict[str, Tensor], weight: Tensor) -> Tensor | None:
    """What a layer's bias wants its weights' scales to be at least."""
    if operator_name(layer) not in LAYERS:
        return None
    call = Operation(layer)
    source: Any = call["input"]
    if call.get("bias") is None or operator_name(source) != _VALUES:
        return None
    axis = OUT_AXIS.get(operator_name(layer), 0)
    return bias_floor(tensors[str(call["bias"].target)], weight, float(source.args[1]), axis)


def _tensors(module: CapturedModule, graph: fx.Graph) -> dict[str, Tensor]:
    """Copies of what the graph reads."""
    found = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            value = attribute(module, str(node.target))
            copied = value.detach().clone()
            found[str(node.target)] = torch.nn.Parameter(copied) if isinstance(value, torch.nn.Parameter) else copied
    return found


def _replace(node: fx.Node, made: fx.Node) -> None:
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    node.graph.erase_node(node)


def _made(graph: fx.Graph, tensors: dict[str, Tensor], origin: CapturedModule) -> CapturedModule:
    graph.eliminate_dead_code()
    read = {str(node.target): tensors[str(node.target)] for node in graph.nodes if node.op == "get_attr"}
    return captured_module(holder_of(read), graph, origin.meta)
