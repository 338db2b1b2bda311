"""Calibration inputs in whatever form a person has them, as calls of a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..frontend.arguments import Inputs, input_names
from ..frontend.base.arrays import as_tensors
from ..frontend.base.errors import InputError
from ..frontend.base.own_code import failure
from ..frontend.graph_module import CapturedModule
from ..passes.recovery.calibration import Calibration, examples_in, given_calibration, takes
from ..passes.recovery.synthetic import Synthetic, synthetic_calibration

__all__ = ["Examples", "calibration_of"]

Examples = str | Synthetic | Inputs | Iterable[Any]
"""A kind of synthetic inputs, or how they are made; inputs of one call; or a list, ``DataLoader`` or other iterable of calls,
which may have targets behind their inputs."""

_AT_ONCE = 32
"""Inputs in a call, where the network's batch may vary."""


def calibration_of(
    module: CapturedModule,
    given: Examples,
    example: Sequence[Any],
    images: int | None,
    seed: int = 0,
    what: str = "calibration",
) -> Calibration:
    """The calls, of at most `images` inputs together; None: of all. `what` they are for is told in messages.

    Raises:
        InputError: there are none, the network does not take them, or they hold NaN or infinity.
    """
    if images is not None and (isinstance(images, bool) or not isinstance(images, int) or images < 1):
        raise InputError(f"images is {images!r}; give a whole number from 1")
    if isinstance(given, str | Synthetic):
        made = (
            Synthetic(given, images=min(images or Synthetic.images, Synthetic.images))
            if isinstance(given, str)
            else given
        )
        return synthetic_calibration(module, example, made, seed)
    single = isinstance(given, Tensor | np.ndarray | tuple | Mapping)
    items = [given] if single else _first(module, given, images, what)
    found = given_calibration(module, list(as_tensors(items)), example, what)
    calls: list[tuple[Any, ...]] = []
    for call in found.calls:
        for piece in _pieces(module, call):
            if images is None or sum(map(examples_in, calls)) < images:
                calls.append(piece)
    count = sum(map(examples_in, calls))
    if not count:
        raise InputError(f"the {what} inputs hold no examples; give some as the model was trained on")
    return Calibration(tuple(calls), f"{count} inputs that were given")


def _first(module: CapturedModule, given: Any, images: int | None, what: str) -> list[Any]:
    """What an iterable gives, until these are enough inputs, without targets."""
    if not isinstance(given, Iterable):
        raise InputError(
            f"a {type(given).__name__} gives no {what} inputs; give a batch, a list of batches or a DataLoader"
        )
    names = input_names(module)
    found: list[Any] = []
    count = 0
    for item in _made(given, what):
        inputs = _without_targets(item, names)
        leaves = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor | np.ndarray) and leaf.ndim]
        found.append(inputs)
        count += len(leaves[0]) if leaves else 1
        if images is not None and count >= images:
            break
    if not found:
        raise InputError(f"there are no {what} inputs: what was given is empty; give at least one batch")
    return found


def _made(given: Iterable[Any], what: str) -> Iterator[Any]:
    try:
        yield from given
    except InputError:
        raise
    except Exception as error:
        raise failure(f"a batch of {what} inputs cannot be made", error) from error


def _without_targets(item: Any, names: Sequence[str]) -> Any:
    """The inputs of one call out of what a loader gives: as many as the model takes, or those of its names."""
    if isinstance(item, Mapping):
        return {name: item[name] for name in names} if all(name in item for name in names) else item
    if isinstance(item, list | tuple):
        first = item[0] if item else None
        if len(names) > 1 and isinstance(first, Mapping | tuple | list):
            return _without_targets(first, names)
        return tuple(item[: len(names)])
    return item


def _pieces(module: CapturedModule, call: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """A call in smaller ones, if its batch may vary."""
    leaves, structure = pytree.tree_flatten(call)
    count = examples_in(call)
    alike = all(isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == count for leaf in leaves)
    if count <= _AT_ONCE or not alike:
        return [call]
    split = [torch.split(leaf, _AT_ONCE) for leaf in leaves]
    found = [tuple(pytree.tree_unflatten(list(parts), structure)) for parts in zip(*split, strict=True)]
    return found if all(takes(module, piece) for piece in found) else [call]
