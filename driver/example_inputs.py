"""Example inputs as a person writes them on the command line, in order or by name, as the arguments of one call."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..frontend.base.errors import InputError

__all__ = ["arranged", "check_bytes", "nested", "parse_input", "random_input", "shaped"]

_MOST_BYTES = 16_000_000_000

Named = tuple[str | None, torch.Tensor]


def shaped(texts: Sequence[str], seed: int) -> list[Named]:
    """Tensors of the shapes that ``[NAME=]1x3x224x224[,dtype]`` ask for, with the names.

    Raises:
        InputError: a text is none of these.
    """
    found: list[Named] = []
    for index, text in enumerate(texts):
        name, equals, shape = text.rpartition("=")
        found.append((name if equals else None, parse_input(shape, seed + index)))
    return found


def parse_input(text: str, seed: int = 0) -> torch.Tensor:
    """``1x3x224x224[,dtype]`` as a tensor: normally distributed floats, or zeros for the other dtypes.

    Raises:
        InputError: a size is no positive number, or there is no such dtype.
    """
    sizes, _, name = text.partition(",")
    if Path(text).suffix in (".npy", ".npz"):
        raise InputError(f"input '{text}' is a file, and --input gives shapes; give files to 'run', without --input")
    dtype = getattr(torch, name.strip() or "float32", None)
    if not isinstance(dtype, torch.dtype) or not _holds_numbers(dtype):
        raise InputError(f"input '{text}' names the dtype '{name.strip()}', which no input can have; try float32")
    parts = sizes.strip().lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"input '{text}' is no shape; write sizes above 0 with x between them, such as 1x3x224x224")
    shape = tuple(int(part) for part in parts)
    check_bytes(math.prod(shape) * dtype.itemsize, text)
    return random_input(shape, dtype, seed)


def check_bytes(size: int, text: str) -> None:
    """Raises InputError for an example input that no machine would have the memory for."""
    if size > _MOST_BYTES:
        raise InputError(f"input '{text}' would take {size / 1e9:,.0f} GB, and 16 is the most; give smaller sizes")


def _holds_numbers(dtype: torch.dtype) -> bool:
    """Whether torch can make and compare tensors of it: not of single bits, nor of quantised numbers."""
    try:
        value = torch.zeros(1, dtype=dtype)
        return torch.equal(value, value.clone())
    except RuntimeError:
        return False


def random_input(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    if not dtype.is_floating_point:
        # Zero is a valid index into every table, and a valid mask.
        return torch.zeros(shape, dtype=dtype)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def arranged(given: Sequence[Named], model: nn.Module, stored: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
    """The arguments, by position, of a call of `model` with these tensors.

    ``batch.image`` is the entry ``image`` of a dict that is the argument ``batch``; ``pair.0`` is the first entry of a list.

    Args:
        stored: the inputs that the model was captured with: their containers are those of the call, and what is no tensor
            is as it was.

    Raises:
        InputError: some have names and others have none, or the model has no input of a name, or needs one that is not
            given.
    """
    parameters = inspect.signature(model.forward).parameters
    named = {name: tensor for name, tensor in given if name is not None and name.split(".")[0] in parameters}
    if not named:
        if unknown := [name for name, _ in given if name is not None]:
            raise InputError(f"the model has no input '{unknown[0]}'; it takes {', '.join(parameters)}")
        return nested([tensor for _, tensor in given], stored)
    for name, _ in given:
        if name is None:
            raise InputError("some inputs were given by name and others without; give all by name, or all in order")
        if name not in named:
            raise InputError(f"the model has no input '{name}'; it takes {', '.join(parameters)}")
    if len(named) < len(given):
        raise InputError(f"an input was given twice, among {', '.join(name for name, _ in given if name)}")
    arguments = _by_argument(named)
    last = max(place for place, name in enumerate(parameters) if name in arguments)
    return tuple(
        arguments[name] if name in arguments else _default(place, parameter, stored)
        for place, (name, parameter) in enumerate(parameters.items())
        if place <= last or (stored is not None and place < len(stored))
    )


def nested(tensors: Sequence[torch.Tensor], stored: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """The stored inputs with other tensors in place of theirs; the tensors alone if they are more, or fewer."""
    leaves, spec = pytree.tree_flatten(stored or ())
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    if len(places) != len(tensors):
        return tuple(tensors)
    for place, tensor in zip(places, tensors, strict=True):
        leaves[place] = tensor
    return tuple(pytree.tree_unflatten(leaves, spec))


def _by_argument(named: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Dicts, and lists where all keys are places, by names with ``.`` between the keys."""
    found: dict[str, Any] = {}
    for name, tensor in named.items():
        *keys, last = name.split(".")
        place = found
        for key in keys:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise InputError(f"input '{name}' lies within an input that was given as a whole")
        if last in place:
            raise InputError(f"input '{name}' was given as a whole and in parts")
        place[last] = tensor
    return {name: _listed(value) for name, value in found.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    entries = {key: _listed(entry) for key, entry in value.items()}
    places = [str(place) for place in range(len(entries))]
    return [entries[place] for place in places] if set(entries) == set(places) else entries


def _default(place: int, parameter: inspect.Parameter, stored: tuple[Any, ...] | None) -> Any:
    if stored is not None and place < len(stored):
        if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(stored[place])):
            return stored[place]
    elif parameter.default is not inspect.Parameter.empty:
        return parameter.default
    raise InputError(f"input '{parameter.name}' was not given; name it as well, as in --input {parameter.name}=1x8")
