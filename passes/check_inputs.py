"""Inputs of several kinds, made after an example, on which two programs that should compute the same are compared.

Random numbers alone leave much unseen. A rule may hold only while a mask shows at least one key, or while every token has
the id that the example's has; a kernel may be right only for numbers around zero. So masks, ids and lengths vary, too:

- ``as given``: random numbers; masks, ids and lengths are those of the example.
- ``random``: all of them random, whole numbers within what the model takes.
- ``all true``: every mask shows everything.
- ``one row false``: the last row (the last image or sequence, and the last query) of every mask is empty, the others show
  everything; a row of ids holds the padding alone, a length is zero.
- ``one row true``: the other way round, for masks that say what to leave out.
- ``large mean``: numbers around a thousand, whose spread is one.
- ``constant``: one number everywhere.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .index_ranges import ANYTHING, IndexRange

__all__ = ["CERTIFICATE_KINDS", "KINDS", "check_inputs", "resized"]

CERTIFICATE_KINDS = ("as given", "random", "all true", "one row false", "one row true")
"""Kinds that differ in what masks and ids say."""

KINDS = (*CERTIFICATE_KINDS, "large mean", "constant")

_HIDES = -1e3
"""A floating-point mask that is added to scores holds zeros, and numbers below this where it hides something."""


def check_inputs(
    example_inputs: Sequence[Any],
    kinds: Sequence[str] = KINDS,
    *,
    seed: int = 0,
    ranges: Mapping[int, IndexRange] | None = None,
    additive: Container[int] = (),
) -> dict[str, tuple[Any, ...]]:
    """Inputs by kind, each of the structure, shapes and types of `example_inputs`.

    A kind that would repeat an earlier one is left out: a model of images alone has no masks to vary. What is not a
    tensor is as in the example.

    Args:
        example_inputs: positional inputs of one call; they are only read.
        kinds: which of `KINDS`, in this order.
        seed: of all random numbers.
        ranges: what whole numbers the model takes, by the place of the input among all flattened ones (see
            `index_ranges`). Without it, they stay between zero (or the example's smallest) and the example's largest.
        additive: the places of inputs that are added to scores (see `additive_masks`): they are masks that hide with minus
            infinity, whatever numbers the example holds.
    """
    leaves, structure = pytree.tree_flatten(tuple(example_inputs))
    made: dict[str, tuple[Any, ...]] = {}
    seen: list[list[Any]] = []
    for kind in kinds:
        generator = torch.Generator().manual_seed(seed)
        values = [
            _value(leaf, kind, generator, (ranges or {}).get(place, ANYTHING), place in additive)
            if isinstance(leaf, Tensor)
            else leaf
            for place, leaf in enumerate(leaves)
        ]
        if not any(_same(values, earlier) for earlier in seen):
            seen.append(values)
            made[kind] = pytree.tree_unflatten(values, structure)
    return made


def resized(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """`tensor` with other sizes: its positions are repeated from the first on, so that it stays the kind of input it is."""
    for axis, size in enumerate(sizes):
        if size != tensor.shape[axis]:
            tensor = tensor.index_select(axis, torch.arange(size, device=tensor.device) % max(1, tensor.shape[axis]))
    return tensor


def _same(values: Sequence[Any], others: Sequence[Any]) -> bool:
    return all(
        torch.equal(value, other) if isinstance(value, Tensor) else value is other
        for value, other in zip(values, others, strict=True)
    )


def _value(example: Tensor, kind: str, generator: torch.Generator, allowed: IndexRange, additive: bool) -> Tensor:
    """One input of a kind."""
    if allowed.ascending:
        return _ascending(example, kind, generator, allowed)
    flag = _flag(example, allowed)
    if flag is None and additive and kind in CERTIFICATE_KINDS[1:]:
        flag = -torch.inf, 0.0
    if flag is not None:
        return _flags(example, kind, generator, *flag)
    if example.is_floating_point() or example.is_complex():
        return _numbers(example, kind, generator)
    return _whole_numbers(example, kind, generator, allowed)


def _flag(example: Tensor, allowed: IndexRange) -> tuple[Any, Any] | None:
    """What stands for False and True in a mask; None where the input is none.

    Numbers are a mask where both zero and one (or a number that hides) occur and nothing else. Whole numbers that are all
    one are, too, unless they pick something: that is how transformers' masks come.
    """
    if example.dtype is torch.bool:
        return False, True
    if not example.numel() or example.is_complex() or allowed.high is not None:
        return None
    low, high = (float(bound) for bound in torch.aminmax(example))
    plain = example.is_floating_point() or example.dtype is torch.uint8  # An image may be all black or all white.
    if not bool(((example == low) | (example == high)).all()) or (low == high and plain):
        return None
    if (low, high) == (0.0, 1.0) or (low == high and low in (0.0, 1.0)):
        return 0, 1
    return (low, 0.0) if example.is_floating_point() and high == 0.0 and low < _HIDES else None


def _flags(example: Tensor, kind: str, generator: torch.Generator, false: Any, true: Any) -> Tensor:
    if kind == "random":
        drawn = torch.rand(example.shape, generator=generator) < 0.6
        on, off = torch.full_like(example, true), torch.full_like(example, false)
        return torch.where(drawn.to(example.device), on, off)
    if kind == "all true":
        return torch.full_like(example, true)
    if kind == "one row false":
        return _with_row(torch.full_like(example, true), false)
    if kind == "one row true":
        return _with_row(torch.full_like(example, false), true)
    return example.clone()


def _with_row(values: Tensor, row: Any) -> Tensor:
    """`values` with `row` in the last image, and in the last query of every image; everywhere if there is one row only."""
    several = values.dim() > 0 and values.shape[0] > 1
    queries = values.dim() > 2 and values.shape[-2] > 1
    if several:
        values[-1] = row
    if queries:
        values[..., -1, :] = row
    return values if several or queries else values.fill_(row)


def _numbers(example: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    if kind == "constant":
        return torch.full_like(example, 0.5)
    wide = torch.complex128 if example.is_complex() else torch.float64
    drawn = torch.randn(example.shape, generator=generator, dtype=wide)
    return (drawn + 1000 if kind == "large mean" else drawn).to(example.dtype).to(example.device)


def _ascending(example: Tensor, kind: str, generator: torch.Generator, allowed: IndexRange) -> Tensor:
    """Where bags begin, as one row of whole numbers; all lie in the last one, or in the first."""
    low, high = allowed.bounds(example) if example.numel() else (0, 0)
    if kind in ("one row false", "one row true"):
        drawn = torch.full_like(example, low if kind == "one row false" else high)
    elif kind in ("random", "all true"):
        drawn = torch.randint(low, high + 1, example.shape, generator=generator).to(example.dtype).to(example.device)
    else:
        drawn = example.clone()
    drawn[:1] = low
    return drawn.sort().values


def _whole_numbers(example: Tensor, kind: str, generator: torch.Generator, allowed: IndexRange) -> Tensor:
    if kind in ("as given", "large mean", "constant") or not example.numel():
        return example.clone()
    low, high = allowed.bounds(example)
    drawn = torch.randint(low, high + 1, example.shape, generator=generator).to(example.dtype).to(example.device)
    if kind in ("one row false", "one row true"):
        telling = [value for value in allowed.telling if low <= value <= high] or [low]
        return _with_row(drawn, telling[0 if kind == "one row false" else -1])
    return drawn
