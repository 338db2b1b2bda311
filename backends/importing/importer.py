"""From a torch module to Relax: export, decompose into what TVM's importer reads well, import. Refusals name the operator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument
from tvm import IRModule
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from ...frontend.base.errors import CaptureError
from ...frontend.capture import capture
from ...frontend.exporting import distinct, export_program
from ...frontend.writes import written_places
from ...passes.integers.lowering import IntegerProgram, with_integers
from ...passes.integers.scheme import has_codes
from ..graph.nodes import Array
from ..signature import Signature, signature_of
from ..state import State, carry_state
from .branches import inline_branches
from .complex_pairs import COMPLEX_LEFT, complex_left, without_pairs
from .constant_folding import fold_constants
from .converters import CONVERTERS
from .decompositions import importable
from .origins import Origin, origins_of
from .quantised import refused_scales
from .unsupported import UnsupportedError, draws_numbers, named_in, reason_of

__all__ = ["Imported", "import_module"]


@dataclass(frozen=True, eq=False)
class Imported:
    """A module as Relax, and the programs on the way there.

    Attributes:
        module: Relax, with the parameters as constants. ``main`` always returns a tuple; structure deeper than that is
            flattened in export's order. What the forward pass writes comes last, among its inputs and its outputs.
        exported: as the model was written.
        decomposed: of operators that were then imported one by one.
        state: the buffers that it writes.
        integers: what is computed on codes, where something is.
        origins: where in the model the variables of `module` come from, by name.
    """

    module: IRModule
    exported: ExportedProgram
    decomposed: ExportedProgram
    state: tuple[State, ...] = ()
    integers: IntegerProgram | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def signature(self) -> Signature:
        """How the model is called."""
        return signature_of(self.exported)

    @property
    def weights(self) -> dict[str, Array]:
        """The parameters and buffers of the model in float32, and the weights of layers on codes, by name."""
        found = self.exported.state_dict
        floats = {name: tensor for name, tensor in found.items() if tensor.dtype == torch.float32}
        codes = {} if self.integers is None else self.integers.weights
        return {name: tensor.detach().cpu().numpy() for name, tensor in {**codes, **floats}.items()}


def import_module(
    module: nn.Module, example_inputs: tuple[Any, ...], *, integers: bool = True, floats: Collection[str] = ()
) -> Imported:
    """`module`, in its present mode and for the shapes of `example_inputs`, as Relax.

    Args:
        integers: whether what is quantised is computed on codes, by `passes.integers`; else in float32, on what they stand for.
        floats: names of the weights of layers that are computed in float32 all the same.

    Raises:
        UnsupportedError: an operator of it cannot be compiled.
        CaptureError: it keeps state that cannot be carried from call to call.
    """
    exported = _exported(module, example_inputs)
    inline_branches(exported)
    program = None
    if integers and has_codes(exported.graph):
        program = with_integers(exported.module(check_guards=False), floats)
        exported = _exported(program.module, example_inputs)
    refused = refused_scales(exported)
    if refused is not None:
        raise refused
    decomposed = _decomposed(exported)
    state = carry_state(decomposed, exported)
    random = draws_numbers(decomposed, exported)
    if random is not None:
        raise random
    without_pairs(decomposed)
    left = complex_left(decomposed)
    if left is not None:
        raise UnsupportedError(left, exported, *COMPLEX_LEFT)
    _leave_out_values(decomposed)
    fold_constants(decomposed)
    translated, origins = _translated(decomposed, exported)
    return Imported(translated, exported, decomposed, state, program, origins)


def _exported(module: nn.Module, example_inputs: tuple[Any, ...]) -> ExportedProgram:
    if not isinstance(module, fx.GraphModule):
        exported = export_program(module, example_inputs)
        if not written_places(exported.graph):
            return exported
        module = capture(exported)  # In which a buffer has one name.
    with torch.no_grad():  # Under which a parameter may be written to.
        return torch.export.export(module, distinct(example_inputs), strict=False)


def _decomposed(exported: ExportedProgram) -> ExportedProgram:
    try:
        return exported.run_decompositions(importable())
    except Exception as error:
        node = named_in(error, exported)
        if node is None:
            raise
        raise UnsupportedError(node, exported, *reason_of(error)) from error


def _leave_out_values(program: ExportedProgram) -> None:
    """Takes None, numbers and strings out of what a program takes and gives; the model's signature has them."""
    signature, graph = program.graph_signature, program.graph
    (output,) = graph.find_nodes(op="output")
    kept = [not isinstance(spec.arg, ConstantArgument) for spec in signature.output_specs]
    if not any(kept):
        raise CaptureError("the model gives no tensor, and there is nothing else to compute; return one")
    output.args = (tuple(value for value, keep in zip(output.args[0], kept, strict=True) if keep),)
    signature.output_specs[:] = [spec for spec, keep in zip(signature.output_specs, kept, strict=True) if keep]
    constants = {spec.arg.name for spec in signature.input_specs if isinstance(spec.arg, ConstantArgument)}
    for node in graph.find_nodes(op="placeholder"):
        if node.name in constants:
            graph.erase_node(node)
    signature.input_specs[:] = [spec for spec in signature.input_specs if spec.arg.name not in constants]
    program.graph_module.recompile()


def _translated(decomposed: ExportedProgram, exported: ExportedProgram) -> tuple[IRModule, dict[str, Origin]]:
    """Relax, and where its variables come from."""
    importer = ExportedProgramImporter()
    known = {*importer.create_convert_map(), *CONVERTERS}
    calls = [node for node in decomposed.graph.nodes if node.op == "call_function"]
    unknown = next((node for node in calls if node.target.__name__ not in known), None)
    if unknown is not None:
        raise UnsupportedError(unknown, exported, "is not among the operators that TVM has")
    try:
        module = importer.from_exported_program(decomposed, False, False, False, dict(CONVERTERS))
    except Exception as error:
        stopped = next((node for node in calls if node not in importer.env), None)
        if stopped is None:
            raise
        raise UnsupportedError(stopped, exported, *reason_of(error)) from error
    return module, origins_of(module, importer.env, exported)
