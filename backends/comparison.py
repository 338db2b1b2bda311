"""Compiled code runs beside the model on inputs of several kinds before anybody gets it.

A program that reads an operator wrongly, or computes it unstably, may be right for the example's values only. So it runs on the
example, on inputs that a caller gives, and on made ones: random, of a large mean with a small spread, constant, with masks
that hide everything, with other ids. Code for another machine is compared through the same imported program, compiled for
this one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from ..passes.additive_masks import additive_masks
from ..passes.check_inputs import check_inputs
from ..passes.index_ranges import index_ranges
from ..passes.running import in_turn
from .agreement import disagreement

__all__ = ["difference"]

_PERTURBATIONS = 3
"""How often the model runs on inputs that differ by a rounding, to see what that alone changes."""

_LENIENCE = 10
"""Compiled code rounds at other places than PyTorch, so it may be off by several times what a rounding of the input does."""

_TURNS = 3
"""Calls of a model with state, one after the other."""

Call = Callable[..., Any]


def difference(
    compiled: Call,
    module: nn.Module,
    example: tuple[Any, ...],
    own: Sequence[tuple[Any, ...]],
    graph: fx.GraphModule,
    *,
    reset: Callable[[], None] | None = None,
    within: Callable[[tuple[Any, ...]], bool] | None = None,
    tolerance: float | None = None,
) -> str | None:
    """What is wrong with the outputs of compiled code, and on which inputs, in words; None if nothing is.

    Args:
        compiled: takes the inputs, and gives the outputs.
        module: the model, in the mode that was compiled.
        example: the inputs that it was compiled for.
        own: further inputs of these shapes and types, which the caller wants to see compared.
        graph: of the model, which tells what whole numbers it takes.
        reset: for models with state: puts the compiled one's back to what it begins with. Both are then called several times
            in turn on inputs of each kind.
        within: whether made inputs are such as the code is for; None for all of them.
        tolerance: by which outputs may be off, see `DType.tolerance`, which None stands for; of 0 every bit has to be the same.
    """
    turns = 1 if reset is None else _TURNS
    for kind, inputs, given in _inputs(example, own, graph):
        if not given and within is not None and not within(inputs):
            continue
        try:
            expected = _outputs(module, inputs, turns)
        except Exception:
            if given:
                raise
            continue  # The model itself does not take what was made, so there is nothing to compare.
        if reset is not None:
            reset()
        found = [tensor for turn in in_turn(inputs, turns) for tensor in _tensors(compiled(*turn))]
        reason = disagreement(expected, found, tolerance)
        if reason is not None and tolerance != 0.0:
            reason = disagreement(expected, found, tolerance, slack=_slack(module, inputs, expected, turns))
        if reason is not None:
            return f"{reason}, on {kind}{f', in {turns} calls in turn' if turns > 1 else ''}"
    return None


def _inputs(
    example: tuple[Any, ...], own: Sequence[tuple[Any, ...]], graph: fx.GraphModule
) -> Iterator[tuple[str, tuple[Any, ...], bool]]:
    """Inputs, what to call them, and whether the caller gave them."""
    yield "the example inputs", example, True
    for number, inputs in enumerate(own):
        yield f"check_inputs[{number}]", inputs, True
    made = check_inputs(example, ranges=index_ranges(graph), additive=additive_masks(graph))
    for kind, inputs in made.items():
        yield f"inputs of the kind '{kind}'", inputs, False


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _outputs(module: nn.Module, inputs: tuple[Any, ...], turns: int) -> list[Any]:
    """Of several calls in turn, on copies of what a forward pass may write to."""
    if turns > 1:
        call: Call = copy.deepcopy(module)
    else:
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        call = partial(functional_call, module, buffers)
    found: list[Any] = []
    with torch.no_grad():
        for turn in in_turn(inputs, turns):
            given = pytree.tree_map_only(Tensor, torch.clone, turn)
            result = call(*given) if turns > 1 else call(given)
            # What is given out may be a buffer, which the next call writes to.
            found += [tensor.clone() for tensor in _tensors(result)]
    return found


def _slack(module: nn.Module, inputs: tuple[Any, ...], expected: Sequence[Any], turns: int) -> list[float]:
    """By output, how far the model's own moves when its inputs change by a rounding, times `_LENIENCE`."""
    slack = [0.0] * len(expected)
    for seed in range(_PERTURBATIONS):
        generator = torch.Generator().manual_seed(seed)
        moved = _outputs(module, pytree.tree_map_only(Tensor, partial(_moved, generator=generator), inputs), turns)
        for place, (before, after) in enumerate(zip(expected, moved, strict=True)):
            slack[place] = max(slack[place], _LENIENCE * _distance(torch.as_tensor(before), torch.as_tensor(after)))
    return slack


def _moved(value: Tensor, generator: torch.Generator) -> Tensor:
    if not value.is_floating_point():
        return value
    signs = torch.randint(-1, 2, value.shape, generator=generator).to(value.dtype)
    return value * (1 + signs * torch.finfo(value.dtype).eps)


def _distance(before: Tensor, after: Tensor) -> float:
    """As `disagreement` measures it: the largest difference, or the share of entries that differ."""
    if not before.numel():
        return 0.0
    if not before.is_floating_point():
        return float((before != after).double().mean())
    finite = before.isfinite()
    if not torch.equal(finite, after.isfinite()):
        return float("inf")
    return float((before - after)[finite].abs().double().max()) if bool(finite.any()) else 0.0
