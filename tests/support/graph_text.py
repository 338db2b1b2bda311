"""A graph as text that says what a person would look at, and nothing that changes from run to run."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from reconvene.passes.values import attribute, operator_name

__all__ = ["graph_text"]


def graph_text(module: fx.GraphModule) -> str:
    """One line a node: name, operator, arguments; stored tensors with their shapes, inputs and results too."""
    lines = []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            lines.append(f"{node.name} = {node.target} {_shape(attribute(module, str(node.target)))}")
        elif node.op == "placeholder":
            lines.append(f"{node.name} = input {_shape(node.meta['val'])}")
        elif node.op == "output":
            lines.append(f"return {', '.join(map(str, node.args[0]))}")
        else:
            arguments = [_argument(value) for value in node.args] + [
                f"{k}={_argument(v)}" for k, v in node.kwargs.items()
            ]
            lines.append(f"{node.name} = {operator_name(node)}({', '.join(arguments)}) {_shape(node.meta['val'])}")
    return "\n".join(lines)


def _argument(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_argument, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "x".join(map(str, value.shape)) or "scalar"
    return " ".join(map(_shape, value))
