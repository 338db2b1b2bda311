"""Which axes of the example inputs are the batch, and a graph that holds for batches of any size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.export.dynamic_shapes import _combine_args
from torch.func import functional_call
from torch.utils import _pytree as pytree

from .exporting import inference
from .graph_module import CapturedModule

__all__ = ["batch_shapes", "computes_the_same", "enlarged", "first_of_batch"]

_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 1e-4, 1e-5


def batch_shapes(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.export's form of "the batch may vary", None where no input has one.

    The batch is the first axis of every tensor, in lists and dicts too, that is as long there as the first tensor. Where
    that is wrong, torch.export finds that the size is fixed, or fails.
    """
    size = _batch((args, kwargs))
    if not size:
        return None
    try:
        combined = _combine_args(model, args, kwargs)
    except TypeError:
        return None  # The model does not take these inputs, which the export says better.
    return pytree.tree_map(lambda value: {0: Dim.AUTO} if _batched(value, size) else None, combined)


def enlarged(inputs: Any, shapes: Any) -> Any:
    """The inputs with a batch of two or so where it is one and, by `shapes`, may vary: operators decide differently about
    axes of size 1.
    """
    declared = any(isinstance(form, dict) and 0 in form for form in _forms(shapes))
    if _batch(inputs) != 1 or not declared:
        return inputs
    taken = {n for value in pytree.tree_leaves(inputs) if isinstance(value, torch.Tensor) for n in value.shape}
    size = next(n for n in (2, 3, 5, 7, 11, 13) if n not in taken or n == 13)
    return pytree.tree_map(
        lambda value: value.detach().repeat(size, *[1] * (value.dim() - 1)) if _batched(value, 1) else value, inputs
    )


def _forms(shapes: Any) -> list[Any]:
    """torch.export's forms of single tensors: dicts by axis."""
    if isinstance(shapes, dict) and all(isinstance(key, int) for key in shapes):
        return [shapes]
    if isinstance(shapes, dict | list | tuple):
        return [form for part in (shapes.values() if isinstance(shapes, dict) else shapes) for form in _forms(part)]
    return []


def first_of_batch(inputs: Any) -> Any:
    """The inputs with a batch of one."""
    size = _batch(inputs)
    return pytree.tree_map(lambda value: value[:1] if _batched(value, size) else value, inputs)


def _batch(inputs: Any) -> int:
    tensors = [value for value in pytree.tree_leaves(inputs) if isinstance(value, torch.Tensor) and value.dim()]
    return len(tensors[0]) if tensors else 0


def _batched(value: Any, size: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == size


def computes_the_same(model: nn.Module, module: CapturedModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Returns if the model and its graph give the same for inputs like these, with random numbers where theirs are.

    Asked where operators made conditions on a size (of memory layouts, mostly) that hide what the model's own code decides.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return torch.randn(value.shape, generator=generator).to(value) if floating else value

    args, kwargs = pytree.tree_map(drawn, (args, kwargs))

    def of_model() -> Any:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return functional_call(model, buffers, args, kwargs)

    with inference(model, (args, kwargs)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, found = _seeded(of_model), _seeded(lambda: _forward(module, (*args, *kwargs.values())))
    return expected is not None and found is not None and _close(expected, found)


def _forward(module: CapturedModule, inputs: tuple[Any, ...]) -> Any:
    """A call without the check of sizes, on copies of the buffers."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.nn.utils.stateless._reparametrize_module(module, buffers):
        return module.forward(*inputs)


def _seeded(call: Callable[[], Any]) -> list[Any] | None:
    """The tensors that a call gives, None if it fails."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            return [leaf for leaf in pytree.tree_leaves(call()) if isinstance(leaf, torch.Tensor)]
        except Exception:
            return None


def _close(expected: list[Any], found: list[Any]) -> bool:
    return len(expected) == len(found) and all(
        (one.shape, one.dtype) == (other.shape, other.dtype)
        and torch.allclose(one, other, _RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE, equal_nan=True)
        for one, other in zip(expected, found, strict=True)
    )
