"""What is to be left alone: patterns of names, or modules of the model themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from ..frontend.base.errors import InputError
from ..frontend.unwrapping import unwrapped

__all__ = ["Ignored", "patterns_of"]

Ignored = str | nn.Module | Collection[str | nn.Module]
"""A pattern (``fnmatch``) of parameter or layer names, a module of the model, or several of these."""


def patterns_of(model: Any, ignored: Ignored) -> Any:
    """`ignored` with patterns of names for the modules in it; what is neither stays, to be refused with the other options.

    Raises:
        InputError: a module is none of the model's, or has no parameters.
    """
    if isinstance(ignored, nn.Module):
        return (_pattern(model, ignored),)
    if isinstance(ignored, str) or not isinstance(ignored, Collection):
        return ignored
    return tuple(_pattern(model, each) if isinstance(each, nn.Module) else each for each in ignored)


def _pattern(model: Any, part: nn.Module) -> str:
    kind = type(part).__name__
    plain = unwrapped(model) if isinstance(model, nn.Module) else None
    inner = unwrapped(part)
    places = [] if plain is None else [name for name, each in plain.named_modules() if unwrapped(each) is inner]
    if not places:
        raise InputError(
            f"the {kind} to ignore is no part of the model; take it from the model itself, or give its name"
        )
    if not any(True for _ in part.parameters()):
        raise InputError(f"the {kind} to ignore, '{places[0]}', has no weights; there is nothing to leave alone")
    return f"{places[0]}.*" if places[0] else "*"
