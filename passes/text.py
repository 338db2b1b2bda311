"""A captured or rewritten graph as text: a line a node, and nothing that changes from run to run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from .values import attribute, operator_name

__all__ = ["module_text"]


def module_text(module: fx.GraphModule) -> str:
    """Name, operator, arguments, shape and type of every node; of stored tensors the name they are stored under and how many
    zeros they have. Graphs within (the branches of a ``torch.cond``) are indented.
    """
    return "\n".join(_line(module, node) for node in module.graph.nodes)


def _line(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "output":
        returned = node.args[0]
        return f"return {', '.join(map(_argument, returned)) if isinstance(returned, tuple | list) else _argument(returned)}"
    if node.op == "get_attr":
        stored = attribute(module, str(node.target))
        if isinstance(stored, fx.GraphModule):
            return f"{node.name} = {node.target} graph\n{textwrap.indent(module_text(stored), '    ')}"
        return f"{node.name} = {node.target} {_value(stored)}{_zeros(stored)}"
    value = _value(node.meta.get("val"))
    if node.op == "placeholder":
        return f"{node.name} = input {value}"
    arguments = [_argument(value) for value in node.args] + [f"{k}={_argument(v)}" for k, v in node.kwargs.items()]
    return f"{node.name} = {operator_name(node)}({', '.join(arguments)}) {value}"


def _argument(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_argument, value))}]"
    return str(value)


def _value(value: Any) -> str:
    """Shape and type of a tensor, of all in a sequence; the type of what is none."""
    if isinstance(value, torch.Tensor):
        return f"{'x'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key}: {_value(part)}' for key, part in value.items())})"
    return type(value).__name__


def _zeros(stored: Any) -> str:
    if not isinstance(stored, torch.Tensor) or stored.is_meta or not stored.is_floating_point():
        return ""
    zeros = stored.numel() - int(stored.detach().count_nonzero())
    return f", {zeros} zeros" if zeros else ""
