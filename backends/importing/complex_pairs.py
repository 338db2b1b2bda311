"""A complex tensor as a real one with an axis more at its end, of the real and the imaginary part, and back.

The views between operators cancel; what is complex at a model's inputs or outputs is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

__all__ = ["COMPLEX_LEFT", "as_complex", "complex_left", "pair", "paired", "parts", "without_pairs"]

A = torch.ops.aten


def pair(x: Tensor) -> Tensor:
    """The real tensor that stands for a complex one; of a real one, with zeros."""
    if x.is_complex():
        return A.view_as_real.default(x)  # type: ignore[no-any-return]
    return A.stack.default([x, torch.zeros_like(x)], -1)  # type: ignore[no-any-return]


def parts(x: Tensor) -> tuple[Tensor, Tensor]:
    both = pair(x)
    return both.select(-1, 0), both.select(-1, 1)


def paired(real: Tensor, imaginary: Tensor) -> Tensor:
    return as_complex(A.stack.default([real, imaginary], -1))


def as_complex(both: Tensor) -> Tensor:
    return A.view_as_complex.default(both)  # type: ignore[no-any-return]


COMPLEX_LEFT = (
    "gives complex numbers in a form that compiled code, which has real ones, cannot carry",
    "give outputs as torch.view_as_real(y), .abs() or .real, and compute with products, sums and Fourier transforms",
)
"""Why what `complex_left` finds is refused, and what to do."""


def without_pairs(program: ExportedProgram) -> None:
    """Cancels views of pairs as complex numbers and back, in place; stored complex tensors become pairs.

    Raises:
        ValueError: an input is complex.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "placeholder" and _complex_valued(node) and node.users:
            _store_pair(program, node)
    for node in list(graph.nodes):
        if node.target is A.view_as_real.default:
            source = node.args[0]
            if source.target is A.view_as_complex.default:
                node.replace_all_uses_with(source.args[0])
            elif source.op == "placeholder" and not _complex_valued(source):
                node.replace_all_uses_with(source)
    graph.eliminate_dead_code()


def complex_left(program: ExportedProgram) -> fx.Node | None:
    """The first operator whose complex result is not among those that have a decomposition, or is an output."""
    for node in program.graph.nodes:
        if node.op == "call_function" and _complex_valued(node) and node.target is not A.view_as_complex.default:
            return node
    return next((node for node in program.graph.nodes if node.op == "call_function" and _complex_valued(node)), None)


def _complex_valued(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def _store_pair(program: ExportedProgram, node: fx.Node) -> None:
    spec = next(spec for spec in program.graph_signature.input_specs if spec.arg.name == node.name)
    stores = (program.state_dict, program.constants)
    store = next((store for store in stores if spec.target is not None and spec.target in store), None)
    if store is None:
        raise ValueError(
            f"the input '{node.name}' is complex, and compiled code has real numbers only; give"
            " torch.view_as_real(x), and begin the model with torch.view_as_complex"
        )
    value = store[spec.target]
    both = torch.view_as_real(value.detach().resolve_conj()).contiguous()
    store[spec.target] = (
        torch.nn.Parameter(both, requires_grad=False) if isinstance(value, torch.nn.Parameter) else both
    )
    node.meta["val"] = torch.view_as_real(node.meta["val"])
