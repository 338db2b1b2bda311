"""Containers outside of a model that its own code, its hooks and what these call can write to.

torch.export runs that code on stand-ins for tensors. A cache in a module-level dict, a list that a hook's closure holds, or the
memory of ``functools.cache`` is left full of them, and what one call leaves there for the next is no part of the graph.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from .attributes import call_outputs, close_outputs, other_inputs
from .base.errors import CaptureError

__all__ = ["changed_outside", "check_kept_outside", "containers_outside", "memories_outside", "shallow"]

_CONTAINERS = (dict, list, set)
_LIBRARIES = ("torch.", "torchvision.", "timm.", "numpy.", "builtins")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def containers_outside(model: nn.Module) -> dict[str, Any]:
    """By the name that the code has for it, every dict, list and set that code of the model's own can reach."""
    return _walked(model).containers


def memories_outside(model: nn.Module) -> list[Any]:
    """The functions with a memory (``functools.cache``, ``lru_cache``) that code of the model's own can reach."""
    return _walked(model).memories


def _walked(model: nn.Module) -> _Walk:
    walk = _Walk()
    for value in _code(model):
        walk.look("", value)
    return walk


def _code(model: nn.Module) -> Iterator[Any]:
    """Functions of a model: methods of its modules' own classes, what its modules hold as attributes, and hooks."""
    kinds: set[type] = set()
    for module in model.modules():
        kinds |= set(type(module).__mro__)
        yield from (value for value in vars(module).values() if callable(value) and not isinstance(value, nn.Module))
        yield from (hook for name in _HOOKS for hook in getattr(module, name, {}).values())
    for kind in sorted(kinds - {object}, key=lambda kind: kind.__qualname__):
        if not kind.__module__.startswith(_LIBRARIES):
            yield from vars(kind).values()


@dataclass
class _Walk:
    """What code reaches, and has been looked at."""

    containers: dict[str, Any] = field(default_factory=dict)
    memories: list[Any] = field(default_factory=list)
    _seen: set[Any] = field(default_factory=set)

    def look(self, name: str, value: Any) -> None:
        """Follows what code has under `name`."""
        if isinstance(value, functools._lru_cache_wrapper):
            if id(value) not in self._seen and not (value.__module__ or "").startswith(_LIBRARIES):
                self._seen.add(id(value))
                self.memories.append(value)
                self.look(name, value.__wrapped__)
            return
        function = _function_in(value)
        if function is not None:
            self._function(function)
        elif name and type(value) in _CONTAINERS:
            self._container(name, value)

    def _container(self, name: str, value: Any) -> None:
        if id(value) not in self._seen:
            self._seen.add(id(value))
            alike = sum(known.partition(" ")[0] == name for known in self.containers)
            self.containers[f"{name} ({alike + 1})" if alike else name] = value

    def _function(self, function: FunctionType) -> None:
        place = id(function.__code__), id(function.__closure__)
        if place in self._seen or (function.__module__ or "").startswith(_LIBRARIES):
            return
        self._seen.add(place)
        held = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        values = {name: cell.cell_contents for name, cell in held.items() if _is_filled(cell)}
        names = _names(function.__code__)
        values |= {name: function.__globals__[name] for name in names if name in function.__globals__}
        for name, value in values.items():
            self.look(name, value)


def _function_in(value: Any) -> FunctionType | None:
    """The function of a method, of a property, or of ``functools.partial``; None where there is no Python code."""
    for attribute in ("__func__", "fget", "func"):
        value = getattr(value, attribute, value) if not isinstance(value, FunctionType | nn.Module) else value
    return value if isinstance(value, FunctionType) else None


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
