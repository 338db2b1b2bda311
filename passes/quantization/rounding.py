"""Which values of a graph are rounded to 8-bit integers, and which of them share a scale.

Only operators decide, never where they came from, which rewritten graphs do not keep:

- A convolution (also transposed or depthwise) or a linear layer reads an integer value and integer weights. Its result is
  rounded behind its clamp (ReLU, ReLU6, hardtanh, clamp) if that is its only reader.
- So are sums, differences and products of two values (residual connections, squeeze and excitation) whose operands come from
  integer operators, if an integer operator reads the result, and averages, which have a scale of their own. One of two may be
  stored (positions, scales of channels): it stays as it is.
- What only moves numbers, or takes one of them (max pool, padding with zeros, views, permutations, slices, shuffles, nearest
  upsampling, dropout), shares the scale of its operand, and a concatenation has one scale for all.
- Activation functions that are no clamps (SiLU, hardswish, sigmoid, GELU) are computed in float between dequantise and
  quantise: their operand is rounded as well if it comes from an integer operator, as TFLite and QNNPACK do, so that integers
  go from kernel to kernel, and a table could stand for them.
- All else is float: softmax, layer normalisation, products of two computed matrices, sums that only such operators read (the
  residual stream of a transformer). So are the network's outputs, and what leads to them without a layer between: the last
  layer's result is not rounded. Where outputs are to be rounded as well, those that come from integer operators are.

A value is rounded where integer operators read it. A float reader of the same value reads it unrounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import fx

from ...frontend.graph_module import CapturedModule
from ..values import MUTATED, WRITTEN, Operation, operator_name, shape_of
from .operators import ACTIVATIONS, JOINS, LAYERS, SPLITS, is_average, is_clamp, is_move, is_sum

__all__ = ["Rounding", "float_reasons", "layer_name", "rounding_of"]

_MOST_PRODUCTS = 66_000
"""In one sum: 2^30 / (128 * 127), so that products and a bias of half the range fit into 32 bits."""


@dataclass(frozen=True, eq=False)
class Rounding:
    """What is rounded.

    Attributes:
        layers: by call, the name of each layer whose weights are rounded.
        floats: by call, the name of each layer that stays float, and why.
        edges: pairs of a value and a call that reads it rounded, in the order of the calls.
        groups: by value, the number of its scale; values of one number share it.
        ends: by call, the clamp behind which its result is rounded, or the call itself.
    """

    layers: Mapping[fx.Node, str]
    floats: Mapping[fx.Node, tuple[str, str]]
    edges: tuple[tuple[fx.Node, fx.Node], ...]
    groups: Mapping[fx.Node, int]
    ends: Mapping[fx.Node, fx.Node]

    def in_graph(self, copies: Mapping[fx.Node, fx.Node]) -> Rounding:
        """The same of a copy of the graph."""
        return Rounding(
            {copies[node]: name for node, name in self.layers.items()},
            {copies[node]: reason for node, reason in self.floats.items()},
            tuple((copies[value], copies[node]) for value, node in self.edges),
            {copies[node]: group for node, group in self.groups.items()},
            {copies[node]: copies[end] for node, end in self.ends.items()},
        )


def layer_name(node: fx.Node) -> str:
    """The layer that a call is, by its weight's name; the call's own name where that is computed."""
    weight = Operation(node)["weight"]
    if isinstance(weight, fx.Node) and weight.op == "get_attr":
        return str(weight.target).removesuffix(".weight")
    return node.name


def float_reasons(module: CapturedModule, asked: Callable[[str], str | None]) -> dict[fx.Node, tuple[str, str]]:
    """The layers that stay float, with their names and why. `asked` says so of a layer by name."""
    found = {}
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if operator_name(node) in LAYERS:
            name = layer_name(node)
            reason = _unfit(node) or asked(name)
        elif operator_name(node) in _OTHER_LAYERS:
            name, reason = node.name, f"{operator_name(node).removeprefix('aten.')} has no form in 8 bits here"
        else:
            continue
        if reason:
            found[node] = name, reason
    return found


_OTHER_LAYERS = {
    f"aten.{name}"
    for name in "conv3d conv_transpose3d bilinear lstm gru rnn_tanh rnn_relu matmul bmm baddbmm mm addmm "
    "scaled_dot_product_attention".split()
}  # fmt: skip


def _unfit(node: fx.Node) -> str | None:
    """Why a layer cannot be rounded."""
    call = Operation(node)
    weight, source = call["weight"], call["input"]
    if weight.op != "get_attr":
        return "its weights are computed in every call"
    if weight.meta.get(WRITTEN) or source.meta.get(MUTATED):
        return "its weights or its input are written to in place"
    if call.get("bias") is not None and call["bias"].op != "get_attr":
        return "its bias is computed in every call"
    for value in (weight, source):
        dtype = value.meta["val"].dtype
        if dtype is not torch.float32:
            return f"it computes in {str(dtype).removeprefix('torch.')}, and only float32 is rounded"
    if source.op == "get_attr":
        return "its input is stored"
    products = 1
    for size in shape_of(weight)[1:]:
        products *= size
    if products > _MOST_PRODUCTS:
        return f"it adds up {products} products, and 32 bits hold the sum of {_MOST_PRODUCTS}"
    return None


def rounding_of(
    module: CapturedModule, floats: Mapping[fx.Node, tuple[str, str]], *, outputs: bool = False
) -> Rounding:
    """What is rounded in a prepared graph, where the layers `floats` are to stay float; with `outputs`, what it gives, too."""
    found = _Finder(module, floats, outputs)
    edges = tuple(
        (value, node)
        for node in module.graph.nodes
        for value in dict.fromkeys(node.all_input_nodes)
        if found.wants(node, value)
    )
    layers = {node: layer_name(node) for node in module.graph.nodes if found.is_layer(node)}
    return Rounding(layers, dict(floats), edges, found.groups(edges), dict(found.ends))


@dataclass(eq=False)
class _Finder:
    """Looks once forward for what comes from integer operators, and once backward for what is read by them."""

    module: CapturedModule
    floats: Mapping[fx.Node, tuple[str, str]]
    outputs: bool = False
    ends: dict[fx.Node, fx.Node] = field(default_factory=dict)
    _integer: set[fx.Node] = field(default_factory=set)
    """Values that come from integer operators, if anything wants them so."""
    _demanded: set[fx.Node] = field(default_factory=set)
    """Values that an integer operator reads."""

    def __post_init__(self) -> None:
        nodes = list(self.module.graph.nodes)
        for node in nodes:
            if self._comes_from_integers(node):
                self._integer.add(node)
        for node in reversed(nodes):
            if any(self.wants(user, node) for user in node.users):
                self._demanded.add(node)

    def is_layer(self, node: fx.Node) -> bool:
        return node.op == "call_function" and operator_name(node) in LAYERS and node not in self.floats

    def _comes_from_integers(self, node: fx.Node) -> bool:
        if node.op != "call_function":
            return False
        operands = [value in self._integer for value in node.all_input_nodes]
        if self.is_layer(node) or (is_sum(node) and self._adds_integers(node) and _is_real(node)):
            self.ends[node] = _end(node)
            return True
        name = operator_name(node)
        if is_clamp(node) or name in ACTIVATIONS or is_average(node) or is_move(node) or name in SPLITS:
            return operands[:1] == [True]
        return (name == "getitem" and operands == [True]) or (name in JOINS and any(operands))

    def _adds_integers(self, node: fx.Node) -> bool:
        """Whether the operands of a sum come from integers, but for one that is stored, which stays as it is."""
        return all(value in self._integer or value.op == "get_attr" for value in node.all_input_nodes)

    def wants(self, node: fx.Node, value: fx.Node) -> bool:
        """Whether `node` reads `value` rounded."""
        if node.op == "output":
            return self.outputs and value in self._integer and _is_real(value)
        if node.op != "call_function" or not _is_real(value):
            return False
        if self.is_layer(node):
            return value is Operation(node)["input"]
        if not self._is_demanded(node) or self.ends.get(value) is node:
            return False
        name = operator_name(node)
        if name == "getitem":
            return False
        if is_move(node) or name in SPLITS:
            return value is node.all_input_nodes[0] and value.op != "get_attr"
        if is_sum(node):
            return node in self._integer and value.op != "get_attr"
        if name in JOINS:
            return node in self._integer
        return (is_clamp(node) or is_average(node) or name in ACTIVATIONS) and value in self._integer

    def _is_demanded(self, node: fx.Node) -> bool:
        return self.ends.get(node, node) in self._demanded or (
            operator_name(node) in SPLITS and any(user in self._demanded for user in node.users)
        )

    def groups(self, edges: tuple[tuple[fx.Node, fx.Node], ...]) -> dict[fx.Node, int]:
        parent: dict[fx.Node, fx.Node] = {}

        def root(value: fx.Node) -> fx.Node:
            while (above := parent.setdefault(value, value)) is not value:
                parent[value] = parent.setdefault(above, above)
                value = above
            return value

        for value, node in edges:
            root(value)
            if is_move(node) or operator_name(node) in JOINS:
                parent[root(value)] = root(node)
            elif operator_name(node) in SPLITS:
                for piece in node.users:
                    parent[root(value)] = root(piece)
        numbers: dict[fx.Node, int] = {}
        return {value: numbers.setdefault(root(value), len(numbers)) for value, _ in edges}


def _end(node: fx.Node) -> fx.Node:
    """The clamp behind a call if that is its only reader, else the call."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" and is_clamp(users[0]) else node


def _is_real(node: fx.Node) -> bool:
    """Whether a value is one tensor of float32 that nothing changes behind its readers' backs."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype is torch.float32 and not node.meta.get(MUTATED)
