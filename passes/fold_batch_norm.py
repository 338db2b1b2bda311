"""Folds batch normalisation into the convolution or linear layer before it, for inference.

With ``s = weight / sqrt(var + eps)``: ``W' = W * s`` per output channel and ``b' = (b - mean) * s + bias``.
"""

from __future__ import annotations

import torch
from torch import fx

from ..frontend.calls import set_named_argument
from ..frontend.graph_module import CapturedModule, captured_module
from .canonicalize import canonicalize
from .rules import layer_of
from .rules.kernel_blocks import blocks_of, stored_form
from .stored import holder_of, place_tensor
from .values import Operation, attribute, operator_name, shape_of

__all__ = ["affine_of", "fold_batch_norm"]


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
    call, norm = node.args[0], Operation(node, module)
    if not isinstance(call, fx.Node) or call.op != "call_function" or len(call.users) > 1:
        return
    layer = layer_of(Operation(call, module))
    if layer is None or layer.axis != 1 or norm["training"] or norm.tensor("running_mean") is None:
        return
    stored = [node for node in (layer.weight, layer.bias) if node is not None]
    if any(str(node.target) not in tensors or len(node.users) > 1 for node in stored):
        return
    scale, shift = affine_of(norm, shape_of(call)[layer.axis])
    old = tensors[str(layer.weight.target)].detach()
    kernel = blocks_of(old.double(), layer) * scale.reshape(layer.groups, -1, 1, 1)
    tensors[str(layer.weight.target)] = torch.nn.Parameter(stored_form(kernel, layer).to(old.dtype))
    bias = tensors[str(layer.bias.target)].detach() if layer.bias is not None else None
    new_bias = torch.nn.Parameter(((bias.double() if bias is not None else 0.0) * scale + shift).to(old.dtype))
    if layer.bias is not None:
        tensors[str(layer.bias.target)] = new_bias
    else:
        _add_bias(module, call, str(layer.weight.target), new_bias, tensors)
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def affine_of(norm: Operation, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch normalisation in inference as scale and shift, float64."""
    stored = {name: norm.tensor(name) for name in ("weight", "bias", "running_mean", "running_var")}
    ones, zeros = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    weight = stored["weight"].double() if stored["weight"] is not None else ones
    bias = stored["bias"].double() if stored["bias"] is not None else zeros
    assert stored["running_mean"] is not None and stored["running_var"] is not None
    scale = weight / torch.sqrt(stored["running_var"].double() + norm["eps"])
    return scale, bias - stored["running_mean"].double() * scale


def _add_bias(
    module: fx.GraphModule, call: fx.Node, weight_name: str, bias: torch.nn.Parameter, tensors: dict[str, torch.Tensor]
) -> None:
    path = weight_name.rpartition(".")[0]
    name = f"{path}.bias" if path else "bias"
    while name in tensors:
        name += "_"
    tensors[name] = bias
    place_tensor(module, name, bias)
    with module.graph.inserting_before(call):
        node = module.graph.get_attr(name)
    node.meta["val"] = call.meta["val"].new_empty(bias.shape)
    set_named_argument(call, "bias", node)
