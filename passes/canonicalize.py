"""Brings a captured graph into the form the rules expect, without changing what it computes.

- Calls that only check something are dropped, and slices that take everything (``x[:, i] = y`` writes to one).
- In-place operators become their pure forms wherever no other reader could tell the difference.
- Weights that are computed from stored tensors (``torch.nn.utils.prune``, parametrisations) become stored weights.
- Two names for one stored tensor become one.
- A reshape, permute, reshape chain that permutes one axis (channel shuffle) becomes one ``index_select``.
- A chain that joins a batch of unknown size with heads, and parts them again, becomes one that does not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

from ..frontend.graph_module import CapturedModule, captured_module, copied_graph
from ..frontend.modes import modes_of
from ..frontend.writes import storage_of, written_operands, written_places
from .channel_shuffles import fuse_channel_shuffles
from .merged_batches import separate_batches
from .pure_forms import in_own_type, pure_form
from .rules import layer_of
from .rules.recurrent_cell import recurrent_tensors
from .state_writes import write_once
from .stored import holder_of
from .values import MOVED, MUTATED, REMADE, STATE, WRITTEN, Operation, attribute, is_tensor, operator_name, same_shape

__all__ = ["CHECKS", "canonicalize"]

CHECKS = (
    "aten._assert_tensor_metadata",
    "aten._assert_scalar",
    "aten._assert_async",
    "aten.sym_constrain_range_for_size",
    "aten.sym_constrain_range",
)

_MOVES = frozenset(
    f"aten.{name}"
    for name in (
        "t", "transpose", "permute", "numpy_T", "matrix_H", "mT", "adjoint", "movedim", "swapaxes", "flip", "view", "reshape",
        "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone", "detach", "alias",
    )
)  # fmt: skip
"""Operators that put all entries of their operand elsewhere and change none."""


def canonicalize(module: fx.GraphModule, replaced: Mapping[str, torch.Tensor] | None = None) -> CapturedModule:
    """Gives the canonical form as a new module that shares stored tensors with `module`.

    Tensors in `replaced` stand for those of the same name from the start, and for weights that only the canonical form stores
    under theirs as soon as these are known: other weights are computed from them.
    """
    graph = copied_graph(module.graph)
    for node in graph.nodes:
        for said in (
            MOVED,
            REMADE,
        ):  # Of a canonical form: what this one is made from is stored, however that came to be.
            node.meta.pop(said, None)
    _drop_checks(graph)
    _drop_whole_slices(graph)
    _merge_aliases(module, graph)
    for place, calls in written_places(graph).items():
        if any(map(written_operands, calls)):  # What a normalisation in training updates, it does not read.
            place.meta[WRITTEN] = True
    write_once(graph)
    _make_pure(graph)
    names = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    tensors = {name: attribute(module, name) for name in names} | dict(replaced or {})
    tensors |= _store_computed_weights(module, graph, tensors)
    tensors |= fuse_channel_shuffles(graph)
    separate_batches(graph)
    graph.eliminate_dead_code()
    read = {str(node.target): tensors[str(node.target)] for node in graph.nodes if node.op == "get_attr"}
    result = captured_module(holder_of(read), graph, module.meta, counts=module)
    graph.lint()
    return result


def _drop_checks(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if (node.op == "call_function" and not node.users and operator_name(node) in CHECKS) or (
            node.op == "call_module" and not node.users
        ):
            graph.erase_node(node)


def _drop_whole_slices(graph: fx.Graph) -> None:
    output = graph.output_node()
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.slice.Tensor and output not in node.users:
            call = Operation(node)
            source, start, step = call["self"], call["start"], call["step"]
            if start in (None, 0) and step == 1 and same_shape(node, source):
                node.replace_all_uses_with(source)
                graph.erase_node(node)


def _merge_aliases(module: fx.GraphModule, graph: fx.Graph) -> None:
    """One node for one stored tensor, and one per result of an operator with several."""
    first: dict[object, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            key: object = ("get_attr", id(attribute(module, str(node.target))))
        elif node.op == "call_function" and operator_name(node) == "getitem":
            key = ("getitem", node.args[0], node.args[1])
        else:
            continue
        original = first.setdefault(key, node)
        if original is not node:
            node.replace_all_uses_with(original)
            graph.erase_node(node)


def _make_pure(graph: fx.Graph) -> None:
    """Replaces ``relu_(x)`` by ``relu(x)`` and later readers of x by readers of the result."""
    values = _Values(graph)
    for node in list(graph.nodes):
        targets = written_operands(node)
        if not targets or node.meta.get(STATE):
            continue
        if len(targets) > 1:
            for operand in targets:
                values.mark(values.storage[operand])
            continue
        target = targets[0]
        pure, root = pure_form(node), values.storage[target]
        stored = root.op in ("get_attr", "placeholder")
        if pure is None or values.seen_later(node, target) or (stored and root is not target):
            values.mark(root)
        elif stored:
            node.meta[MUTATED] = target.meta[MUTATED] = True
        else:
            _replace_after(target, node, values.order)
            node.target = pure
            values.part(node, root, in_own_type(graph, node))


class _Values:
    """Which values of a graph share their memory, while calls that write to it become pure ones.

    Attributes:
        storage: by value, the first one in its memory.
        order: of the nodes.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.storage = storage_of(graph)
        self.order = {node: place for place, node in enumerate(graph.nodes)}
        self._sharers: dict[fx.Node, list[fx.Node]] = {}
        for node, root in self.storage.items():
            self._sharers.setdefault(root, []).append(node)

    def mark(self, root: fx.Node) -> None:
        """Says of all values in this memory that they are written to."""
        for other in self._sharers[root]:
            other.meta[MUTATED] = True

    def seen_later(self, node: fx.Node, target: fx.Node) -> bool:
        """Whether another view of what `node` writes to was taken before it, and is read after it."""
        order = self.order
        views = self._sharers[self.storage[target]]
        watched = [other for other in views if other is not target and order[other] < order[node]]
        return any(order[user] > order[node] for other in watched for user in other.users if user is not node)

    def part(self, node: fx.Node, root: fx.Node, kept: fx.Node) -> None:
        """Gives `node` and `kept`, its value in the type of what it wrote to, memory of their own."""
        order = self.order
        self.storage[node] = node
        self._sharers[node] = [node]
        if kept is not node:
            self.storage[kept], order[kept] = node, order[node]
            self._sharers[node].append(kept)
        for other in self._sharers[root]:
            # Views taken of the result from here on belong to the new storage.
            if order[other] > order[node]:
                self.storage[other] = node
                self._sharers[node].append(other)


def _replace_after(target: fx.Node, node: fx.Node, order: dict[fx.Node, int]) -> None:
    """Readers of `target` that come after `node` read `node`."""
    target.replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])


def _store_computed_weights(
    module: fx.GraphModule, graph: fx.Graph, tensors: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Evaluates what weights and biases are computed from when that is stored tensors only."""
    stored: set[fx.Node] = set()
    calls: dict[tuple[object, str, str], fx.Node] = {}
    for node in graph.nodes:
        if node.op == "get_attr" and not node.meta.get(WRITTEN):
            stored.add(node)
        elif _is_pure_call(node) and all(operand in stored for operand in node.all_input_nodes):
            if operator_name(node) == "aten.to" and _in_type_of(node, node.all_input_nodes[0]):
                first = node.all_input_nodes[0]
            else:
                first = calls.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if first is node:
                stored.add(node)
            else:  # A layer that is called twice has one weight.
                node.replace_all_uses_with(first)
    new: dict[str, torch.Tensor] = {}
    values = {node: tensors[str(node.target)] for node in graph.nodes if node.op == "get_attr"}
    for node in list(graph.nodes):
        for operand in _weights_of(node):
            if operand in stored and operand.op != "get_attr":
                name = _weight_name(operand, new, module, values)
                made = tensors.get(name) if not _exists(module, name) else None
                new[name] = _evaluated(values, operand) if made is None else made
                with graph.inserting_before(operand):
                    attr = graph.get_attr(name)
                attr.meta = copy.copy(operand.meta)
                attr.meta[MOVED] = _moved(operand)
                attr.meta[REMADE] = _exists(module, name) and not _keeps_zeros(values, operand, name, entries=True)
                operand.replace_all_uses_with(attr)
                stored.add(attr)
                values[attr] = new[name]  # Other weights may be computed from this one.
    return new


def _moved(node: fx.Node) -> str | None:
    """The stored tensor of which a node has all entries, in another order or form."""
    while node.op == "call_function" and operator_name(node) in _MOVES and len(node.all_input_nodes) == 1:
        (node,) = node.all_input_nodes
    return str(node.target) if node.op == "get_attr" else None


def _in_type_of(node: fx.Node, operand: fx.Node) -> bool:
    value, before = node.meta["val"], operand.meta["val"]
    return (value.dtype, value.device, value.layout) == (before.dtype, before.device, before.layout)


def _is_pure_call(node: fx.Node) -> bool:
    """Returns if the node's value depends on its operands only."""
    calls = node.op == "call_function" and bool(node.all_input_nodes) and is_tensor(node)
    same = not node.meta.get(MUTATED) and not Operation(node).draws
    return calls and same and modes_of(node) is None  # Weights that training drops from are computed in each call.


def _weights_of(node: fx.Node) -> Iterator[fx.Node]:
    if node.op != "call_function":
        return
    layer = layer_of(Operation(node))
    if layer is not None:
        yield from (operand for operand in (layer.weight, layer.bias) if operand is not None)
    yield from recurrent_tensors(Operation(node))


def _evaluated(stored: Mapping[fx.Node, torch.Tensor], node: fx.Node) -> torch.nn.Parameter:
    """The value of a node that depends on stored tensors only."""
    values: dict[fx.Node, torch.Tensor] = {}

    def value_of(wanted: fx.Node) -> torch.Tensor:
        pending = [wanted]
        while pending:
            current = pending[-1]
            missing = [operand for operand in current.all_input_nodes if operand not in values]
            if missing:
                pending.extend(missing)
                continue
            pending.pop()
            if current.op == "get_attr":
                values[current] = stored[current].detach()
            else:
                args, kwargs = fx.map_arg((current.args, dict(current.kwargs)), values.__getitem__)
                values[current] = current.target(*args, **kwargs)  # type: ignore[operator]
        return values[wanted]

    with torch.no_grad():
        value = value_of(node).clone()
    trained = any(isinstance(stored[leaf], torch.nn.Parameter) for leaf in values if leaf.op == "get_attr")
    return torch.nn.Parameter(value, requires_grad=trained and value.is_floating_point())


def _keeps_zeros(stored: Mapping[fx.Node, torch.Tensor], node: fx.Node, name: str, *, entries: bool = False) -> bool:
    """Whether zeros of the stored tensor `name` are the same zeros of a node that is computed from it, and change nothing else:
    whole filters, or `entries` as well. It is tried on some that are drawn.
    """
    whole = _evaluated(stored, node).detach().nan_to_num()
    shape = whole.shape if entries else (whole.shape[0], *(1,) * (whole.dim() - 1))
    kept = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5).to(whole.device)
    masked = {leaf: value * kept if str(leaf.target) == name else value for leaf, value in stored.items()}
    return torch.equal(_evaluated(masked, node).detach().nan_to_num(), whole * kept)


def _weight_name(
    node: fx.Node, taken: Mapping[str, torch.Tensor], module: fx.GraphModule, stored: Mapping[fx.Node, torch.Tensor]
) -> str:
    """The name the weight had before it was pruned or parametrised, if that can be told; else that of the parameter it
    is computed from, where nothing else reads that one and zero filters of the two are the same (standardised weights); else
    one of the node's."""
    ancestors = _ancestors(node)
    leaves = [leaf for leaf in ancestors if leaf.op == "get_attr"]
    for name in filter(None, (_plain_name(str(leaf.target)) for leaf in leaves)):
        if name not in taken and not _exists(module, name):
            return name
    for leaf in leaves:
        only_here = all(user is node or user in ancestors for user in leaf.users)
        name = str(leaf.target)
        if only_here and same_shape(leaf, node) and name not in taken and _keeps_zeros(stored, node, name):
            return name
    name = f"computed_{node.name}"
    while name in taken or _exists(module, name):
        name += "_"
    return name


def _ancestors(node: fx.Node) -> dict[fx.Node, None]:
    """Everything a node is computed from, nearest first."""
    found: dict[fx.Node, None] = {}
    pending = list(node.all_input_nodes)
    while pending:
        current = pending.pop(0)
        if current not in found:
            found[current] = None
            pending.extend(current.all_input_nodes)
    return found


def _plain_name(leaf: str) -> str | None:
    """The name of a weight that pruning, spectral norm, weight norm or a parametrisation stores under another."""
    path, _, last = leaf.rpartition(".")
    stem = last.removesuffix("_orig").removesuffix("_g")
    if stem != last:
        return f"{path}.{stem}" if path else stem
    head, found, tail = f".{leaf}".partition(".parametrizations.")
    return f"{head}.{tail.split('.')[0]}".lstrip(".") if found else None


def _exists(module: fx.GraphModule, name: str) -> bool:
    try:
        attribute(module, name)
    except AttributeError:
        return False
    return True
