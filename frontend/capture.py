"""A PyTorch model becomes one graph in one vocabulary: torch.export's training IR."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from .arguments import Inputs, arguments
from .base.errors import CaptureError, InputError
from .base.progress import stage
from .batch import batch_shapes, computes_the_same, enlarged, first_of_batch
from .capture_errors import first_line, user_line
from .exported import from_program, traced
from .graph_module import CapturedModule, as_changed, changed_layer
from .input_sizes import InputSizes
from .program_file import load_program
from .program_inputs import deciding_line
from .tracing import Trace, in_both_modes
from .unwrapping import without_wrappers

__all__ = ["FIXED", "Model", "capture", "example_inputs_of"]

Model = nn.Module | fx.GraphModule | ExportedProgram | str | os.PathLike[str]

FIXED = "fixed"
"""For `dynamic_shapes`: every size stays what it is in the example."""


def capture(model: Model, example_inputs: Inputs | None = None, dynamic_shapes: Any = None) -> CapturedModule:
    """Captures `model` in inference mode as a graph module; the model itself is left as it was.

    Args:
        model: a module, a graph module, an exported program, or the path of a ``.pt2`` file.
        example_inputs: the inputs of one call: a sequence of positional ones, a mapping of keyword ones, or a single
            tensor. Not needed for programs and files, which carry theirs.
        dynamic_shapes: which sizes may vary. None: the batch, where the model allows it (``meta["input_sizes"]`` of the
            result says what was found); ``"fixed"``: none; else torch.export's form, such as ``({0: Dim.DYNAMIC},)``.

    Raises:
        CaptureError: the model cannot be captured; the message names the source line and what to change.
        InputError: the inputs are missing or do not fit, or the file cannot be read.
    """
    if isinstance(model, CapturedModule):
        changed = changed_layer(model) is not None
        if not changed and (dynamic_shapes is None or dynamic_shapes == FIXED):
            return model
        example_inputs = example_inputs_of(model) if example_inputs is None else example_inputs
        model = as_changed(model) if changed else model
    if isinstance(model, str | os.PathLike):
        return load_program(model)[0]
    if isinstance(model, ExportedProgram):
        return from_program(model)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"cannot capture a {type(model).__name__}; give a torch.nn.Module, an ExportedProgram or a .pt2 path"
        )
    if example_inputs is None:
        raise InputError(f"cannot capture {type(model).__name__} without example inputs; pass a tuple of tensors")
    with stage("capturing the graph"), without_wrappers(model) as plain:
        args, kwargs = arguments(plain, example_inputs)
        trace = Trace(plain)
        if dynamic_shapes is None:
            module = _with_free_batch(trace, args, kwargs)
        elif dynamic_shapes == FIXED:
            module = traced(trace.program(args, kwargs))
        else:
            module = _with_free_sizes(trace, args, kwargs, dynamic_shapes)
        return in_both_modes(module, trace)


def example_inputs_of(module: nn.Module) -> tuple[Any, ...] | None:
    """The inputs a captured module was captured with, or None when it does not carry any."""
    meta: Mapping[str, Any] = getattr(module, "meta", {})
    return meta.get("example_inputs")


def _with_free_batch(trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CapturedModule:
    """The batch may vary if export can follow the model so, and if other sizes would give the same graph."""
    shapes = batch_shapes(trace.model, args, kwargs)
    if shapes is None:
        return traced(trace.program(args, kwargs))
    try:
        more_args, more_kwargs = enlarged((args, kwargs), shapes)
        program = trace.attempt(more_args, more_kwargs, shapes)
        module = traced(program, (args, kwargs))
    except Exception as error:
        reason = f"the model cannot be followed without a number there: {first_line(error)}{user_line(error)}"
    else:
        sizes = _looked_at_one(trace.model, module, args, kwargs)
        names = [name for name, size in sizes.example if any(sizes.allows(name, other) for other in _others(size))]
        if sizes.refusal(_shapes((args, kwargs))) is None and len(names) == len(sizes.example) > 0:
            module.meta["input_sizes"] = sizes
            return module
        reason = "the model takes another way for other sizes, or computes with the example's size as a number"
        reason += deciding_line(program)
    fixed = traced(trace.program(args, kwargs))
    fixed.meta["input_sizes"] = fixed.meta["input_sizes"].explained(f"the batch is fixed: {reason}")
    return fixed


def _with_free_sizes(
    trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> CapturedModule:
    """The sizes that the person named may vary."""
    traced_args, traced_kwargs = enlarged((args, kwargs), dynamic_shapes)
    program = trace.program(traced_args, traced_kwargs, dynamic_shapes)
    module = traced(program, (args, kwargs))
    sizes = module.meta["input_sizes"] = _looked_at_one(trace.model, module, args, kwargs)
    refusal = sizes.refusal(_shapes((args, kwargs)))
    if refusal:
        raise CaptureError(f"a size declared dynamic is fixed by the model: {refusal}")
    if not kwargs:
        module.meta["dynamic_shapes"] = dynamic_shapes  # With the bounds that they may have.
    return module


def _looked_at_one(
    model: nn.Module, module: CapturedModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> InputSizes:
    """The sizes of `module` without conditions that only a batch of one breaks, if that makes no difference."""
    sizes: InputSizes = module.meta["input_sizes"]
    fussy = sizes.broken_by_one()
    if fussy and computes_the_same(model, module, *first_of_batch((args, kwargs))):
        return sizes.without(fussy)
    return sizes


def _others(size: int) -> list[int]:
    """Sizes that a graph captured with `size` may be asked for."""
    return [other for other in (*range(1, 17), size + 1, 2 * size, 3 * size, 4 * size, 64, 256) if other != size]


def _shapes(inputs: Any) -> tuple[Any, ...]:
    leaves = pytree.tree_leaves(inputs)
    return tuple(tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else None for leaf in leaves)
