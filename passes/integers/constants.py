"""What a graph knows before it runs, and what is added to that."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

__all__ = ["Constants"]

A = torch.ops.aten

_MADE_OF_NUMBERS = frozenset(
    {
        A.linspace.default, A.arange.default, A.arange.start, A.arange.start_step, A.full.default, A.zeros.default,
        A.ones.default, A.eye.default, A.scalar_tensor.default,
    }
)  # fmt: skip
"""What gives a tensor that is always the same, from no tensor."""


class Constants:
    """The tensors of a module's graph that depend on none of its inputs."""

    def __init__(self, module: fx.GraphModule, changed: Collection[fx.Node] = ()) -> None:
        """Those of `changed` are no constants: calls write to them."""
        self._module, self._changed = module, changed
        self._values: dict[fx.Node, Tensor | None] = {}
        self._count = 0

    def value(self, node: Any) -> Tensor | None:
        """What a node always is; None where that depends on an input."""
        if not isinstance(node, fx.Node):
            return None
        if node not in self._values:
            self._values[node] = self._found(node)
        return self._values[node]

    def node(self, at: fx.Node, value: Tensor) -> fx.Node:
        """A further constant, read right before `at`."""
        name = f"_integers_{self._count}"
        self._count += 1
        value = value.detach().contiguous()
        self._module.register_buffer(name, value)
        graph = self._module.graph
        with graph.inserting_before(at):
            node = graph.get_attr(name)
        node.meta["val"] = value
        return node

    def _found(self, node: fx.Node) -> Tensor | None:
        if node in self._changed or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return None
        if node.op == "get_attr":
            value: Any = self._module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value.detach() if isinstance(value, Tensor) else None
        known = bool(node.all_input_nodes) or node.target in _MADE_OF_NUMBERS
        if node.op != "call_function" or not known or any(self.value(each) is None for each in node.all_input_nodes):
            return None
        arguments, keywords = map_arg((node.args, node.kwargs), self.value)
        with torch.no_grad():
            found = node.target(*arguments, **keywords)  # type: ignore[operator]
        return found if isinstance(found, Tensor) else None
