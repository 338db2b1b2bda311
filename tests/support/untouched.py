"""Whether a model is what it was: compared with a description that shares no code with what is tested."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["untouched"]


@contextmanager
def untouched(model: nn.Module, inputs: Any = ()) -> Iterator[None]:
    """Asserts that the block leaves everything that hangs on the model and its inputs as it was."""
    before = _described(model, {}), _described(inputs, {})
    try:
        yield
    finally:
        after = _described(model, {}), _described(inputs, {})
        assert after == before


def _contents(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, int]:
    """Its bytes in short."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return plain.dtype, plain.shape, zlib.crc32(plain.reshape(-1).view(torch.uint8).numpy())


def _described(value: Any, seen: dict[int, int]) -> Any:
    """What a value consists of: types, identities and numbers, in plain containers."""
    if isinstance(value, torch.Tensor):
        return "tensor", type(value).__name__, id(value), value.requires_grad, _contents(value), sorted(vars(value))
    if isinstance(value, str | int | float | bool | None | torch.dtype | torch.device | torch.Size):
        return repr(value)
    if id(value) in seen:
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, dict):
        return type(value).__name__, [(str(key), _described(part, seen)) for key, part in value.items()]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(map(str, value))
    if isinstance(value, list | tuple) or hasattr(value, "popleft"):
        return type(value).__name__, [_described(part, seen) for part in value]
    if callable(value) and not isinstance(value, nn.Module):
        return "callable", id(value)
    held = dict(getattr(value, "__dict__", {}))
    held |= {name: getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)}
    return type(value).__qualname__, [(name, _described(part, seen)) for name, part in held.items()]
