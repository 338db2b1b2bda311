"""torch.export's strict way, from the bytecode of forward, for what tracing cannot follow, such as a way through NumPy."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from .snapshot import preserved

__all__ = ["strict_export"]


def strict_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> ExportedProgram | None:
    """The strictly exported program of `model`, which is in inference mode, or None.

    None where the export fails, and where the program does not compute what the model does: it takes some values that depend
    on an input for constants, and sees nothing of attributes that change.
    """
    try:
        with preserved(model, (args, kwargs)):
            program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=True)
        if _asks_for_values(program) or not _calls_agree(model, program.module(check_guards=False), (args, kwargs)):
            return None
        return program
    except Exception:
        return None


def _asks_for_values(program: ExportedProgram) -> bool:
    """Returns if a tensor's values become numbers of the graph, which sizes and branches may depend on."""
    return any(str(node.target).startswith(("aten.item", "aten._local_scalar_dense")) for node in program.graph.nodes)


def _calls_agree(model: nn.Module, graph: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> bool:
    """Returns if a model and its graph give the same in three calls in turn: on the inputs, and twice on others."""
    other = pytree.tree_map(_varied, inputs)
    with (
        preserved(model, inputs, parameters=True),
        preserved(graph),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):
        for args, kwargs in (inputs, other, inputs):
            results = []
            for module in (model, graph):
                torch.manual_seed(0)
                given = pytree.tree_map(
                    lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs)
                )
                results.append(pytree.tree_leaves(module(*given[0], **given[1])))
            if not all(map(_same, *results)) or len(results[0]) != len(results[1]):
                return False
    return True


def _varied(value: Any) -> Any:
    """Other numbers of the same kind: random ones; whole numbers and flags change their places, or are refused as one."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_floating_point():
        return torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
    if value.dtype is torch.bool:
        return ~value
    turned = value.flatten().roll(1).reshape(value.shape)
    return turned if not torch.equal(turned, value) else value + 1


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same_kind = first.shape == second.shape and first.dtype == second.dtype
        return same_kind and torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True)
    return type(first) is type(second) and bool(first == second)
