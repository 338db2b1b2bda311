"""Tensors, and what torch.export puts in their place, in values of any kind and in the memories of ``functools``."""

from __future__ import annotations

import collections
import functools
import gc
import types
from typing import Any

import torch

__all__ = ["Memory", "tensors_in"]

_LEAVES = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_MOST_LOOKED_AT = 100_000


def tensors_in(*values: Any) -> list[Any]:
    """The tensors and the symbols for sizes in `values`, through containers and attributes, but not through code."""
    found: list[Any] = []
    seen: set[int] = set()
    pending = list(values)
    while pending and len(seen) < _MOST_LOOKED_AT:
        value = pending.pop()
        if isinstance(value, _LEAVES):
            found.append(value)
            continue
        if value is None or isinstance(value, (str, bytes, int, float, *_CODE)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset | collections.deque):
            pending += value
        held = getattr(value, "__dict__", None)
        if isinstance(held, dict):
            pending.append(held)
    return found


class Memory:
    """What a function of ``functools.cache`` or ``lru_cache`` remembers, as it is when this is made.

    Single entries cannot be taken out, so that it forgets all, what a person's own calls left there, too; but only if it was
    asked for something new since, and there is a tensor in it now that was not. Numbers and shapes stay.
    """

    def __init__(self, function: Any) -> None:
        self._function, self._before = function, _remembered(function)
        self._misses = function.cache_info().misses

    def took_tensors(self) -> bool:
        """Whether tensors, or stand-ins for them, came in."""
        if self._function.cache_info().misses == self._misses:
            return False
        after, known = _remembered(self._function), {id(tensor) for tensor in self._before or ()}
        return self._before is None or after is None or any(id(tensor) not in known for tensor in after)

    def restore(self) -> None:
        if self.took_tensors():
            self._function.cache_clear()


def _remembered(function: Any) -> list[Any] | None:
    """Tensors in a memory, which Python's collector of garbage knows; None where it does not."""
    parts = [part for part in gc.get_referents(function) if part is not function.__dict__]
    if not any(isinstance(part, dict) for part in parts):
        return None
    return tensors_in(*(part for part in parts if not isinstance(part, functools._lru_cache_wrapper)))
