"""Values that follow from the graph alone: causal masks, positions, tables that a forward pass makes anew.

They are worked out by running their operators, in float64, so that rules know a mask that is computed as they know a stored
one.
"""

from __future__ import annotations

import torch
from torch import fx

from .running import Runner, default_type
from .values import MUTATED, WRITTEN, Operation, attribute, is_static, is_tensor, shape_of

__all__ = ["ClosedValues"]

_LARGEST = 1 << 16
"""Entries. What is larger counts as unknown."""

_SHAPED_BY_ANOTHER = ("aten.new_zeros", "aten.new_ones", "aten.new_full")
"""Operators that read only the type of their first operand."""

_UNWRITTEN = ("aten.empty", "aten.new_empty", "aten.empty_like", "aten.empty_strided", "aten.new_empty_strided")


class ClosedValues:
    """What was found, node by node in the order of the graph."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._runner = Runner(module, torch.float64)
        self._values: dict[fx.Node, torch.Tensor] = {}

    def add(self, op: Operation) -> torch.Tensor | None:
        """The value of a call whose operands are all known, or None."""
        if not self._follows(op):
            return None
        args, kwargs = fx.map_arg((op.node.args, dict(op.node.kwargs)), self._value)
        try:
            with torch.no_grad(), default_type(torch.float64):
                value = self._runner.call_function(op.node.target, args, kwargs)
        except Exception:
            return None  # In its own types it may run; then nothing is known.
        self._values[op.node] = value
        return value if isinstance(value, torch.Tensor) else None

    def _follows(self, op: Operation) -> bool:
        node = op.node
        if not is_tensor(node) or not isinstance(node.target, torch._ops.OpOverload) or op.name in _UNWRITTEN:
            return False
        if op.draws or op.writes or node.meta.get(MUTATED) or not all(is_static(size) for size in shape_of(node)):
            return False
        if node.meta["val"].numel() > _LARGEST:
            return False
        return op.name in _SHAPED_BY_ANOTHER or all(self._is_known(operand) for operand in node.all_input_nodes)

    def _is_known(self, node: fx.Node) -> bool:
        if node in self._values:
            return True
        if node.op != "get_attr" or not is_tensor(node) or node.meta.get(MUTATED) or node.meta.get(WRITTEN):
            return False
        value = attribute(self._runner.module, str(node.target))
        return not isinstance(value, torch.nn.Parameter) and value.numel() <= _LARGEST

    def _value(self, node: fx.Node) -> torch.Tensor:
        if node in self._values:
            return self._values[node]
        if node.op == "get_attr":
            value: torch.Tensor = self._runner.get_attr(str(node.target), (), {})
            return value
        return self._runner.cast(torch.empty(0, dtype=node.meta["val"].dtype))
