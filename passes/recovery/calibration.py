"""Inputs that layers are solved on: a person's own, or synthetic ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ...frontend.arguments import Inputs, positional
from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ...frontend.input_sizes import check_inputs

__all__ = ["Calibration", "examples_in", "given_calibration", "takes"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What layers are solved on.

    Attributes:
        calls: positional inputs of every call, which the network takes.
        description: for a person.
    """

    calls: tuple[tuple[Any, ...], ...]
    description: str


def given_calibration(
    module: CapturedModule, given: Inputs | Sequence[Inputs], example: Sequence[Any], what: str = "calibration"
) -> Calibration:
    """A person's own inputs: those of one call, or a list of several calls'.

    A batch that the network does not take, because its own is fixed, is cut into batches as large as the example's.
    Floating-point numbers of other types than the example's are converted.

    Args:
        what: they are for, in messages.

    Raises:
        InputError: there are none, the network does not take them, or they hold NaN or infinity.
    """
    batches = given if isinstance(given, list) else [given]
    if not batches:
        raise InputError(f"the list of {what} inputs is empty; give at least one batch")
    calls = tuple(call for batch in batches for call in _calls(module, batch, tuple(example), what))
    images = sum(examples_in(call) for call in calls)
    return Calibration(calls, f"{images} inputs that were given")


def _calls(module: CapturedModule, given: Inputs, example: tuple[Any, ...], what: str) -> list[tuple[Any, ...]]:
    if not isinstance(given, Tensor | Mapping | Sequence) or isinstance(given, str):
        raise InputError(f"the {what} inputs hold a {type(given).__name__}; give tensors, as for one call")
    inputs = _alike(positional(module, given), example, what)
    try:
        module.check_inputs(inputs)
        return [inputs]
    except InputError as error:
        pieces = _cut(inputs, example)
        if pieces is None:
            raise InputError(f"the {what} inputs do not fit the model: {error}") from None
    for piece in pieces:
        try:
            module.check_inputs(piece)
        except InputError as error:
            raise InputError(f"the {what} inputs do not fit the model: {error}") from None
    return pieces


def takes(module: fx.GraphModule, inputs: tuple[Any, ...]) -> bool:
    """Whether the network takes inputs of these sizes."""
    sizes = module.meta.get("input_sizes")
    try:
        if sizes is not None:
            check_inputs(sizes, pytree.tree_leaves(inputs))
    except InputError:
        return False
    return True


def _alike(inputs: tuple[Any, ...], example: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """The inputs in the floating-point types of the example, and on its device."""
    leaves, structure = pytree.tree_flatten(inputs)
    models = pytree.tree_leaves(example)
    if len(leaves) == len(models):
        leaves = [_like(leaf, model, what) for leaf, model in zip(leaves, models, strict=True)]
    return tuple(pytree.tree_unflatten(leaves, structure))


def _like(leaf: Any, model: Any, what: str) -> Any:
    if not isinstance(leaf, Tensor) or not isinstance(model, Tensor):
        return leaf
    if leaf.is_floating_point() and not bool(leaf.isfinite().all()):
        raise InputError(f"the {what} inputs hold NaN or infinity; take these out")
    if leaf.is_floating_point() and model.is_floating_point():
        return leaf.detach().to(model.device, model.dtype)
    if leaf.dtype is not model.dtype:
        wanted, got = (str(kind).removeprefix("torch.") for kind in (model.dtype, leaf.dtype))
        raise InputError(f"the {what} inputs are {got}, and the model takes {wanted}; convert them as it was trained")
    return leaf.detach().to(model.device)


def _cut(inputs: tuple[Any, ...], example: tuple[Any, ...]) -> list[tuple[Any, ...]] | None:
    """The inputs in pieces along the first axis, each as long as the example; None where that cannot be."""
    leaves, structure = pytree.tree_flatten(inputs)
    models = pytree.tree_leaves(example)
    if len(leaves) != len(models) or not all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves):
        return None
    counts = {len(leaf) // len(model) if len(model) and not len(leaf) % len(model) else 0
              for leaf, model in zip(leaves, models, strict=True)}  # fmt: skip
    count = counts.pop() if len(counts) == 1 else 0
    if count < 2:
        return None
    parts = [leaf.chunk(count) for leaf in leaves]
    return [tuple(pytree.tree_unflatten([part[place] for part in parts], structure)) for place in range(count)]


def examples_in(call: tuple[Any, ...]) -> int:
    """How many examples a call holds, as far as its first tensor tells."""
    first = next((leaf for leaf in pytree.tree_leaves(call) if isinstance(leaf, Tensor) and leaf.dim()), None)
    return 1 if first is None else len(first)
