"""Folds batch normalisation into the convolution or linear layer before it, for inference.

With ``s = weight / sqrt(var + eps)``: ``W' = W * s`` per output channel and ``b' = (b - mean) * s + bias``.
"""

from __future__ import annotations

import torch
from torch import fx

from ..frontend.graph_module import CapturedModule, captured_module
from .canonicalize import canonicalize
from .rules import rule_for
from .rules.linear_map import LinearMap
from .stored import holder_of, place_tensor
from .values import Operation, attribute, operator_name, shape_of

__all__ = ["fold_batch_norm"]


def fold_batch_norm(module: fx.GraphModule) -> CapturedModule:
    """Gives a new module without the batch normalisations that follow a layer directly.

    One stays where the layer's result or weight has another reader, or where it runs on the batch's own statistics.
    The result shares the tensors it did not have to change.
    """
    module = canonicalize(module)
    graph = module.graph
    tensors: dict[str, torch.Tensor] = {
        str(n.target): attribute(module, str(n.target)) for n in graph.nodes if n.op == "get_attr"
    }
    for node in list(graph.nodes):
        if node.op == "call_function" and operator_name(node) == "aten.batch_norm":
            _fold(module, graph, node, tensors)
    graph.eliminate_dead_code()
    read = {str(node.target): tensors[str(node.target)] for node in graph.nodes if node.op == "get_attr"}
    graph.lint()
    return captured_module(holder_of(read), graph, module.meta, counts=module)


def _fold(module: fx.GraphModule, graph: fx.Graph, node: fx.Node, tensors: dict[str, torch.Tensor]) -> None:
    layer = node.args[0]
    if not isinstance(layer, fx.Node) or layer.op != "call_function" or len(layer.users) > 1:
        return
    rule = rule_for(operator_name(layer))
    norm = Operation(node, module)
    if not isinstance(rule, LinearMap) or norm["training"] or norm.tensor("running_mean") is None:
        return
    op = Operation(layer, module)
    weight = op["weight"]
    stored = [node for node in (weight, op.get("bias")) if node is not None]
    if any(str(node.target) not in tensors or len(node.users) > 1 for node in stored):
        return
    geometry = rule.geometry(op)
    channels = shape_of(layer)[geometry.target_axis]
    if geometry.target_axis != 1:
        return
    scale, shift = _affine(norm, channels)
    old = tensors[str(weight.target)].detach()
    kernel = old.double()
    if geometry.transposed:
        per_group = kernel.reshape(geometry.groups, -1, *kernel.shape[1:])
        wide = scale.reshape(geometry.groups, 1, -1, *(1,) * (kernel.dim() - 2))
        kernel = (per_group * wide).reshape(kernel.shape)
    else:
        kernel = kernel * scale.reshape(-1, *(1,) * (kernel.dim() - 1))
    bias = tensors[str(op["bias"].target)].detach() if op.get("bias") is not None else None
    new_bias = (bias.double() if bias is not None else 0.0) * scale + shift
    tensors[str(weight.target)] = torch.nn.Parameter(kernel.to(old.dtype))
    if bias is not None:
        tensors[str(op["bias"].target)] = torch.nn.Parameter(new_bias.to(old.dtype))
    else:
        _add_bias(module, layer, str(weight.target), torch.nn.Parameter(new_bias.to(old.dtype)), tensors)
    node.replace_all_uses_with(layer)
    graph.erase_node(node)


def _affine(norm: Operation, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch normalisation in inference as scale and shift, float64."""
    stored = {name: norm.tensor(name) for name in ("weight", "bias", "running_mean", "running_var")}
    ones, zeros = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    weight = stored["weight"].double() if stored["weight"] is not None else ones
    bias = stored["bias"].double() if stored["bias"] is not None else zeros
    assert stored["running_mean"] is not None and stored["running_var"] is not None
    scale = weight / torch.sqrt(stored["running_var"].double() + norm["eps"])
    return scale, bias - stored["running_mean"].double() * scale


def _add_bias(
    module: fx.GraphModule, layer: fx.Node, weight_name: str, bias: torch.nn.Parameter, tensors: dict[str, torch.Tensor]
) -> None:
    path = weight_name.rpartition(".")[0]
    name = f"{path}.bias" if path else "bias"
    while name in tensors:
        name += "_"
    tensors[name] = bias
    place_tensor(module, name, bias)
    with module.graph.inserting_before(layer):
        node = module.graph.get_attr(name)
    node.meta["val"] = layer.meta["val"].new_empty(bias.shape)
    args = list(layer.args)
    if len(args) > 2:
        args[2] = node
    else:
        args.append(node)
    layer.args = tuple(args)
