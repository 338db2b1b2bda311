"""What is to be left alone: patterns of names, or modules of the model themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from ..frontend.base.errors import InputError
from ..frontend.unwrapping import unwrapped

__all__ = ["Ignored", "checked_patterns", "patterns_of"]

Ignored = str | nn.Module | Collection[str | nn.Module]
"""A pattern (``fnmatch``) of parameter or layer names, a module of the model, or several of these."""


def patterns_of(model: Any, ignored: Ignored) -> Any:
    """`ignored` with patterns of names for the modules in it; what is neither stays, to be refused with the other options.

    Raises:
        InputError: a module is none of the model's, or has no parameters.
    """
    if isinstance(ignored, nn.Module):
        return (_pattern(model, ignored),)
    if not isinstance(ignored, Collection) or not any(isinstance(each, nn.Module) for each in ignored):
        return ignored
    return tuple(_pattern(model, each) if isinstance(each, nn.Module) else each for each in ignored)


def checked_patterns(ignore: object, what: str = "what to ignore is") -> tuple[str, ...]:
    """One pattern or several as a tuple. Raises InputError for anything else."""
    given = (ignore,) if isinstance(ignore, str) else ignore
    if not isinstance(given, Collection) or not all(isinstance(pattern, str) for pattern in given):
        raise InputError(f"{what} names or patterns of them, such as ['fc', 'blocks.*'], not {ignore!r}")
    return tuple(given)


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
