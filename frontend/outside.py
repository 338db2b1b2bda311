"""Containers outside of a model that its forward pass, its hooks and what these call can write to.

torch.export runs that code on stand-ins for tensors. A cache in a module-level dict, or a list that a hook's closure holds, is
left full of them, and what one call leaves there for the next is no part of the graph.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from .attributes import call_outputs, close_outputs, other_inputs
from .base.errors import CaptureError

__all__ = ["changed_outside", "check_kept_outside", "containers_outside", "shallow"]

_CONTAINERS = (dict, list, set)
_LIBRARIES = ("torch.", "torchvision.", "timm.", "numpy.", "builtins")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def containers_outside(model: nn.Module) -> dict[str, Any]:
    """By the name that the code has for it, every dict, list and set that code of the model's own can reach."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for function in _functions(model):
        _look(function, found, seen)
    return found


def _functions(model: nn.Module) -> Iterator[FunctionType]:
    for module in model.modules():
        values = [module.forward, *(hook for name in _HOOKS for hook in getattr(module, name, {}).values())]
        for value in values:
            function = getattr(value, "__func__", value)
            if isinstance(function, FunctionType):
                yield function


def _look(function: FunctionType, found: dict[str, Any], seen: set[int]) -> None:
    if id(function.__code__) in seen or (function.__module__ or "").startswith(_LIBRARIES):
        return
    seen.add(id(function.__code__))
    held = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    values = {name: cell.cell_contents for name, cell in held.items() if _is_filled(cell)}
    values |= {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    for name, value in values.items():
        if type(value) in _CONTAINERS:
            found.setdefault(name, value)
        elif isinstance(value, FunctionType):
            _look(value, found, seen)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names(code: CodeType) -> Iterator[str]:
    """What code looks up, that of the functions within it, too."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def shallow(containers: Mapping[str, Any]) -> dict[str, Any]:
    """What is in them now."""
    return {name: copy.copy(value) for name, value in containers.items()}


def changed_outside(containers: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Names of those that hold other things than before."""
    return [name for name, value in containers.items() if _contents(value) != _contents(before[name])]


def _contents(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [(key, id(entry)) for key, entry in value.items()]
    return sorted(map(id, value)) if isinstance(value, set) else [id(entry) for entry in value]


def check_kept_outside(
    model: nn.Module, program: ExportedProgram, inputs: tuple[tuple[Any, ...], dict[str, Any]], changed: Sequence[str]
) -> None:
    """Compares `model`, whose code writes to `changed`, with its program over three calls in turn.

    What is only kept to be looked at, or is the same in every call, is no state.

    Raises:
        CaptureError: a result depends on what an earlier call left there.
    """
    calls = [inputs, other_inputs(inputs), inputs]
    with torch.no_grad():
        expected = [call_outputs(model, call) for call in calls]
        graph = program.module(check_guards=False)
        found = [call_outputs(graph, call) for call in calls]
    if None not in expected and not all(map(close_outputs, expected, found)):
        raise CaptureError(
            f"'{changed[0]}', which lies outside of {type(model).__name__}, is kept from one call to the next; only buffers are"
            " state that a graph can carry: self.register_buffer(...) in __init__, and write a tensor of that shape"
        )
