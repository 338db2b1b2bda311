"""Captured modules from torch.export's programs, and programs from captured modules."""

from __future__ import annotations

from typing import Any

from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from .batch import enlarged
from .exporting import export_program
from .graph_module import CapturedModule, captured_module
from .input_sizes import InputSizes
from .modes import DIFFERENCES, mark_modes_of_a_program, note_differences, set_mode
from .program_inputs import sizes_of, without_fussy_conditions
from .state import own_state
from .symbols import restate_sizes
from .tracing import plain_graph

__all__ = ["from_program", "program_of", "traced"]


def from_program(program: ExportedProgram, inputs: Any = None) -> CapturedModule:
    """A program's graph, with what it takes: its inputs in ``meta["example_inputs"]``, their sizes in
    ``meta["input_sizes"]``, and these in torch.export's form in ``meta["dynamic_shapes"]``.

    `inputs`, by position and by keyword, stand for those that the program was exported with.
    """
    module = plain_graph(program)
    differences = mark_modes_of_a_program(module.graph)
    set_mode(module.graph, False)  # A program may have been exported in training.
    found = traced(program, inputs, module)
    note_differences(found.graph, differences)
    found.meta[DIFFERENCES] = differences
    return found


def program_of(module: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> ExportedProgram:
    """The exported program of a captured module, with these inputs as its example.

    Raises:
        CaptureError: torch.export cannot follow it.
    """
    args, kwargs = enlarged((inputs, {}), dynamic_shapes)
    program = export_program(module, args, dynamic_shapes, kwargs)
    program.example_inputs = (inputs, {})
    sizes: InputSizes | None = getattr(module, "meta", {}).get("input_sizes")
    if sizes is not None and not sizes.broken_by_one():
        program._guards_code = without_fussy_conditions(program)
    return program


def traced(program: ExportedProgram, inputs: Any = None, module: fx.GraphModule | None = None) -> CapturedModule:
    """The same as `from_program` without a word on the modes. `module`: its graph of operators only."""
    module = plain_graph(program) if module is None else module
    graph = module.graph
    own_state(module)
    renamed = restate_sizes(graph)
    example = _flat_arguments(program, inputs or program.example_inputs)
    sizes = sizes_of(module, program, None if example is None else pytree.tree_leaves(example), renamed)
    meta = {"example_inputs": example, "input_sizes": sizes, "dynamic_shapes": _export_form(example, sizes)}
    return captured_module(module, graph, meta)


def _flat_arguments(program: ExportedProgram, inputs: Any) -> tuple[Any, ...] | None:
    """Example inputs in the order of the graph: positional ones, then those by keyword."""
    if not inputs:
        return None
    args, kwargs = inputs
    spec = program.call_spec.in_spec
    order = spec.children()[1].context if spec is not None and spec.num_children == 2 else list(kwargs)
    return (*args, *(kwargs[name] for name in order))


def _export_form(inputs: tuple[Any, ...] | None, sizes: InputSizes) -> Any:
    """The sizes that may vary as torch.export takes them, for positional inputs."""
    if inputs is None or not sizes.free():
        return None
    leaves, structure = pytree.tree_flatten(inputs)
    forms = [
        {axis: Dim.AUTO for axis, size in enumerate(taken.shape or ()) if isinstance(size, str)} or None
        for taken, _ in zip(sizes.inputs, leaves, strict=True)
    ]
    return pytree.tree_unflatten(forms, structure)
