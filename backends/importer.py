"""From a torch module to Relax: export, decompose into what TVM's importer reads well, import. Refusals name the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from tvm import IRModule
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from .converters import CONVERTERS
from .decompositions import importable
from .indexing import count_from_start
from .unsupported import UnsupportedError, draws_numbers, named_in, reason_of

__all__ = ["Imported", "import_module"]


@dataclass(frozen=True, eq=False)
class Imported:
    """A module as Relax, and the programs on the way there.

    Attributes:
        module: Relax, with the parameters as constants. ``main`` always returns a tuple; structure deeper than that is
            flattened in export's order.
        exported: as the model was written.
        decomposed: of operators that were then imported one by one.
    """

    module: IRModule
    exported: ExportedProgram
    decomposed: ExportedProgram

    @property
    def returns_tuple(self) -> bool:
        """Whether the model returns several values."""
        structure = self.exported.call_spec.out_spec
        return structure is None or not structure.is_leaf()


def import_module(module: nn.Module, example_inputs: tuple[Any, ...]) -> Imported:
    """`module`, in its present mode and for the shapes of `example_inputs`, as Relax.

    Raises:
        UnsupportedError: an operator of it cannot be compiled.
    """
    exported = torch.export.export(module, example_inputs, strict=False)
    decomposed = _decomposed(exported)
    random = draws_numbers(decomposed, exported)
    if random is not None:
        raise random
    count_from_start(decomposed)
    return Imported(_translated(decomposed, exported), exported, decomposed)


def _decomposed(exported: ExportedProgram) -> ExportedProgram:
    try:
        return exported.run_decompositions(importable())
    except Exception as error:
        node = named_in(error, exported)
        if node is None:
            raise
        raise UnsupportedError(node, exported, *reason_of(error)) from error


def _translated(decomposed: ExportedProgram, exported: ExportedProgram) -> IRModule:
    importer = ExportedProgramImporter()
    known = {*importer.create_convert_map(), *CONVERTERS}
    calls = [node for node in decomposed.graph.nodes if node.op == "call_function"]
    unknown = next((node for node in calls if node.target.__name__ not in known), None)
    if unknown is not None:
        raise UnsupportedError(unknown, exported, "is not among the operators that TVM has")
    try:
        return importer.from_exported_program(decomposed, False, False, False, dict(CONVERTERS))
    except Exception as error:
        stopped = next((node for node in calls if node not in importer.env), None)
        if stopped is None:
            raise
        raise UnsupportedError(stopped, exported, *reason_of(error)) from error
