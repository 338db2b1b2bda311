"""A model as it was: what a forward pass, traced or run, leaves in its attributes is taken back.

torch.export runs the model's own forward with stand-ins for tensors. What forward assigns on the way (cached anchors, a
position counter, the weight that weight normalisation computes) would stay behind, as stand-ins.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from .outside_places import is_class_data, slots_of
from .stand_ins import Memory

__all__ = ["preserved", "unchanged_on_error"]

_NOT_LOOKED_INTO = (
    fx.Graph,
    fx.Node,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    str,
    bytes,
    int,
    float,
    complex,
    torch.dtype,
    torch.device,
    torch.Size,
    torch.Generator,
    type(None),
)

Restore = Callable[[], None]


@contextmanager
def preserved(model: nn.Module, values: Any = (), *, parameters: bool = False) -> Iterator[None]:
    """Within the block, `model` may be run or traced; afterwards it and `values` (its inputs) are what they were.

    That holds for attributes of it and its modules, whatever they are made of (dicts, lists, sets, dataclasses and other
    objects), for buffers and other tensors that are no parameters, for modes, hooks and parametrisations, and for
    attributes of the model's own classes. A function of ``functools.cache`` there forgets all if a tensor came into it. What is
    written into a parameter is taken back only if `parameters` says so: these are most of a model, and are copied for it.
    """
    restores = _Recorder(parameters).record(model, values)
    try:
        yield
    finally:
        for restore in restores:
            restore()


@contextmanager
def unchanged_on_error(model: nn.Module) -> Iterator[None]:
    """If the block raises, `model` with its parameters is what it was before."""
    restores = _Recorder(parameters=True).record(model)
    try:
        yield
    except BaseException:
        for restore in restores:
            restore()
        raise


class _Recorder:
    """Walks through everything that a module holds, once, and notes how to bring each part back."""

    def __init__(self, parameters: bool = False) -> None:
        self._parameters = parameters
        self._seen: set[int] = set()
        self._restores: list[Restore] = []
        self._pending: list[Any] = []

    def record(self, *values: Any) -> Sequence[Restore]:
        self._pending.extend(values)
        while self._pending:
            value = self._pending.pop()
            if isinstance(value, _NOT_LOOKED_INTO) or id(value) in self._seen:
                continue
            self._seen.add(id(value))
            self._look(value)
        return self._restores

    def _look(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, dict):
            self._dict(value)
        elif isinstance(value, list | set | collections.deque):
            self._collection(value)
        elif isinstance(value, tuple | frozenset):
            self._pending.extend(value)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._restores.append(Memory(value).restore)
        elif isinstance(value, nn.Module) or not _of_torch(type(value)):
            self._object(value)

    def _tensor(self, tensor: torch.Tensor) -> None:
        self._pending.append(vars(tensor))  # torch.export notes there which axes may vary.
        if (
            (isinstance(tensor, nn.Parameter) and not self._parameters)
            or tensor.layout != torch.strided
            or tensor.is_meta
        ):
            return
        before, version = tensor.detach().clone(), tensor._version
        grad_needed = tensor.requires_grad

        def restore() -> None:
            if tensor._version != version or not torch.equal(tensor, before):
                with torch.no_grad():
                    tensor.data.copy_(before)
            if tensor.requires_grad != grad_needed and tensor.is_leaf:
                tensor.requires_grad_(grad_needed)

        self._restores.append(restore)

    def _dict(self, value: dict[Any, Any]) -> None:
        if not value:
            self._restores.append(lambda: value.clear() if value else None)
            return
        before = dict(value)

        def restore() -> None:
            if len(value) != len(before) or any(
                key not in value or value[key] is not part for key, part in before.items()
            ):
                value.clear()
                value.update(before)

        self._restores.append(restore)
        self._pending.extend(before.values())

    def _collection(self, value: Any) -> None:
        before = list(value)

        def restore() -> None:
            if len(value) != len(before) or any(a is not b for a, b in zip(value, before, strict=True)):
                value.clear()
                (value.update if isinstance(value, set) else value.extend)(before)

        self._restores.append(restore)
        self._pending.extend(before)

    def _object(self, value: Any) -> None:
        held, kind = getattr(value, "__dict__", None), type(value)
        if isinstance(held, dict):
            self._class_of(value)
            self._pending.append(held)
        if isinstance(value, nn.Module):

            def restore_class() -> None:
                if type(value) is not kind:
                    object.__setattr__(value, "__class__", kind)

            self._restores.append(restore_class)
        for name in slots_of(kind):
            if hasattr(value, name):
                self._slot(value, name)

    def _slot(self, value: Any, name: str) -> None:
        before = getattr(value, name)

        def restore() -> None:
            if getattr(value, name, None) is not before:
                object.__setattr__(value, name, before)

        self._restores.append(restore)
        self._pending.append(before)

    def _class_of(self, value: Any) -> None:
        """Attributes of the person's own classes: a cache that all models of a class share."""
        for kind in type(value).__mro__:
            if id(kind) in self._seen or kind is object or _of_torch(kind) or issubclass(kind, fx.GraphModule):
                continue
            self._seen.add(id(kind))
            before = {name: part for name, part in vars(kind).items() if is_class_data(name, part)}
            self._restores.append(_class_restore(kind, before))
            self._pending.extend(before.values())


def _class_restore(kind: type, before: dict[str, Any]) -> Restore:
    def restore() -> None:
        for name, part in list(vars(kind).items()):
            if is_class_data(name, part) and name not in before:
                delattr(kind, name)
        for name, part in before.items():
            if vars(kind).get(name, restore) is not part:
                setattr(kind, name, part)

    return restore


def _of_torch(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("torch", "builtins", "collections", "functools", "weakref", "_thread")
