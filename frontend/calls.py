"""Reading one call of a captured graph: its arguments by name, and where it stands in the model."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import fx

from .source_line import source_line

__all__ = ["describe", "innermost", "is_path", "named_arguments", "set_named_argument"]


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """Every argument of a call by its name in the operator's schema, defaults filled in."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {str(position): value for position, value in enumerate(node.args)} | dict(node.kwargs)
    named: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            named[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            named[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def set_named_argument(node: fx.Node, name: str, value: Any) -> bool:
    """Sets an argument of a call by its name; False where the operator has none of that name, or it has that value."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    known = named_arguments(node)
    if name not in known or (type(known[name]) is type(value) and known[name] == value):
        return False
    position, argument = next((p, a) for p, a in enumerate(node.target._schema.arguments) if a.name == name)
    if name in node.kwargs or argument.kwarg_only or position > len(node.args):
        node.update_kwarg(name, value)
    else:
        node.args = (*node.args[:position], value, *node.args[position + 1 :])
    return True


_PATH = re.compile(r"[\w.\-:/ @+]*")


def is_path(text: Any) -> bool:
    """Whether a text may be the dotted name of a module: it becomes a quoted text in generated code."""
    return isinstance(text, str) and _PATH.fullmatch(text) is not None


def innermost(node: fx.Node) -> tuple[str, str]:
    """Path and class of the innermost module whose forward made the call; two empty strings where it is not known."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "", ""
    path, kind = list(stack.values())[-1]
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return (re.sub(r"@\d+", "", path), name) if is_path(path) else ("", "")  # A second call has "@1" behind its path.


def describe(node: fx.Node) -> str:
    """A call for a person: ``dropout (model.py:12)``."""
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    line = source_line(node)
    return f"{name} ({line})" if line else name
