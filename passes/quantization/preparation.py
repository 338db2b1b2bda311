"""A network as quantisation wants it: canonical, without batch normalisation, every product with stored weights a layer."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from ...frontend.calls import named_arguments, set_named_argument
from ...frontend.graph_module import CapturedModule, captured_module, copied_graph
from ..fold_batch_norm import affine_of, fold_batch_norm
from ..stored import holder_of
from ..values import Operation, attribute, operator_name, shape_of
from .operators import LAYERS

__all__ = ["prepared"]


def prepared(module: CapturedModule, *, biases: bool = False) -> CapturedModule:
    """A new module that computes the same; the argument and its tensors are not changed.

    - Batch normalisation is folded into the layer before it. One that has none before it, as in front of an activation in
      DenseNet, becomes a depthwise convolution of one tap, whose weights have no rounding error: each is alone in its channel.
    - ``matmul``, ``mm`` and ``addmm`` with a stored matrix become ``linear``.
    - Values are arguments by position, which PT2E asks for.

    `biases`: gives every layer a bias.
    """
    folded = fold_batch_norm(module)
    graph = copied_graph(folded.graph)
    tensors = {str(node.target): attribute(folded, str(node.target)) for node in graph.nodes if node.op == "get_attr"}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if operator_name(node) == "aten.batch_norm":
            _norm_as_convolution(folded, node, tensors)
        elif operator_name(node) in ("aten.matmul", "aten.mm", "aten.addmm"):
            _product_as_linear(node, tensors)
    for node in graph.nodes:
        if node.op == "call_function":
            if biases and operator_name(node) in LAYERS and named_arguments(node).get("bias") is None:
                _add_bias(node, tensors)
            _by_position(node)
    graph.eliminate_dead_code()
    read = {str(node.target): tensors[str(node.target)] for node in graph.nodes if node.op == "get_attr"}
    return captured_module(holder_of(read), graph, folded.meta, counts=folded)


def _norm_as_convolution(module: CapturedModule, node: fx.Node, tensors: dict[str, Tensor]) -> None:
    norm = Operation(node, module)
    rank = len(shape_of(node))
    if norm["training"] or norm.tensor("running_mean") is None or rank not in (3, 4):
        return
    channels = int(shape_of(node)[1])
    scale, shift = affine_of(norm, channels)
    path = str(norm["running_mean"].target).rpartition(".")[0] or node.name
    graph = node.graph
    stored = {"weight": scale.reshape(channels, *[1] * (rank - 1)), "bias": shift}
    operands = []
    with graph.inserting_before(node):
        for last, value in stored.items():
            name = _free(f"{path}.{last}", tensors, node)
            tensors[name] = torch.nn.Parameter(value.to(node.meta["val"].dtype))
            operands.append(_reader(graph, name, node, value))
        target = (torch.ops.aten.conv1d if rank == 3 else torch.ops.aten.conv2d).default
        ones, zeros = [1] * (rank - 2), [0] * (rank - 2)
        made = graph.call_function(target, (norm["input"], *operands, ones, zeros, ones, channels))
    made.meta = {key: value for key, value in node.meta.items() if key != "custom"}
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _product_as_linear(node: fx.Node, tensors: dict[str, Tensor]) -> None:
    """``matmul(x, W)`` with a stored W of two axes as ``linear(x, W^T)``, and ``addmm(b, x, W)`` likewise."""
    call = Operation(node)
    if operator_name(node) == "aten.addmm":
        bias, source, weight = call["self"], call["mat1"], call["mat2"]
        if call["alpha"] != 1 or call["beta"] != 1 or bias.op != "get_attr" or len(shape_of(bias)) != 1:
            return
    else:
        bias, source, weight = None, call["self"], call.get("other", call.get("mat2"))
    if weight.op != "get_attr" or source.op == "get_attr" or len(shape_of(weight)) != 2:
        return
    graph, name = node.graph, str(weight.target)
    transposed = tensors[name].detach().t().contiguous()
    new = name if len(weight.users) == 1 else _free(f"{name}_transposed", tensors, node)
    tensors[new] = torch.nn.Parameter(transposed)
    with graph.inserting_before(node):
        operand = _reader(graph, new, node, transposed)
        made = graph.call_function(torch.ops.aten.linear.default, (source, operand, *([bias] if bias else [])))
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    graph.erase_node(node)
    if not weight.users:
        graph.erase_node(weight)


def _add_bias(node: fx.Node, tensors: dict[str, Tensor]) -> None:
    weight = named_arguments(node)["weight"]
    if weight.op != "get_attr":
        return
    graph = node.graph
    channels = int(shape_of(node)[-1 if operator_name(node) == "aten.linear" else 1])
    zeros = torch.zeros(channels, dtype=node.meta["val"].dtype)
    name = _free(f"{str(weight.target).rpartition('.')[0] or node.name}.bias", tensors, node)
    tensors[name] = torch.nn.Parameter(zeros)
    with graph.inserting_before(node):
        operand = _reader(graph, name, node, zeros)
    set_named_argument(node, "bias", operand)


def _reader(graph: fx.Graph, name: str, node: fx.Node, value: Tensor) -> fx.Node:
    reader = graph.get_attr(name)
    reader.meta["val"] = node.meta["val"].new_empty(value.shape)
    return reader


def _free(name: str, tensors: dict[str, Tensor], node: fx.Node) -> str:
    """The name, unless another call than `node` reads a value under it."""
    read = {
        str(stored.target)
        for stored in node.graph.nodes
        if stored.op == "get_attr" and any(user is not node for user in stored.users)
    }
    while name in tensors and name in read:
        name += "_"
    return name


def _by_position(node: fx.Node) -> None:
    if not any(isinstance(value, fx.Node) for value in node.kwargs.values()):
        return
    named = named_arguments(node)
    places = [place for place, name in enumerate(named) if isinstance(node.kwargs.get(name), fx.Node)]
    last = max(places, default=-1)
    names = list(named)[: last + 1]
    node.args = tuple(named[name] for name in names)
    node.kwargs = {name: value for name, value in node.kwargs.items() if name not in names}
