"""A PyTorch model becomes one graph in one vocabulary: torch.export's training IR."""

from __future__ import annotations

import os
import re
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from .attributes import check_kept_attributes
from .errors import CaptureError, InputError
from .graph_module import CapturedModule, captured_module, inline_grad_modes
from .progress import stage
from .state import own_state, tracing_state

__all__ = ["Model", "capture", "example_inputs_of", "export_program"]

Model = nn.Module | fx.GraphModule | ExportedProgram | str | os.PathLike[str]


def capture(
    model: Model,
    example_inputs: Sequence[Any] | None = None,
    dynamic_shapes: Any = None,
) -> CapturedModule:
    """Captures `model` in inference mode as a graph module; the model itself is left as it was.

    Args:
        model: a module, a graph module, an exported program, or the path of a ``.pt2`` file.
        example_inputs: the positional inputs of one call. Not needed for programs and files, which carry theirs.
        dynamic_shapes: which sizes may vary, in torch.export's form, such as ``({0: Dim.DYNAMIC},)``.

    Raises:
        CaptureError: the model cannot be captured; the message names the source line and what to change.
        InputError: the inputs are missing, or the file cannot be read.
    """
    if isinstance(model, CapturedModule) and dynamic_shapes is None:
        return model
    if isinstance(model, str | os.PathLike):
        from .program_file import load_program

        return load_program(model)[0]
    if isinstance(model, ExportedProgram):
        return _from_program(model, None)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"cannot capture a {type(model).__name__}; give a torch.nn.Module, an ExportedProgram or a .pt2 path"
        )
    if example_inputs is None:
        raise InputError(f"cannot capture {type(model).__name__} without example inputs; pass a tuple of tensors")
    with stage("capturing the graph"):
        program = export_program(model, tuple(example_inputs), dynamic_shapes)
        return _from_program(program, dynamic_shapes)


def export_program(model: nn.Module, example_inputs: tuple[Any, ...], dynamic_shapes: Any = None) -> ExportedProgram:
    """Exports `model` in inference mode and restores its training flags. Raises CaptureError."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with warnings.catch_warnings():
            # Pruning hooks and parametrisations assign the weight they compute; the graph has the computation.
            warnings.filterwarnings("ignore", message=".*assigned during export.*")
            with tracing_state(model) as traced:
                program = torch.export.export(model, example_inputs, dynamic_shapes=dynamic_shapes, strict=False)
        check_kept_attributes(model, program, example_inputs, traced.attributes)
        return program
    except CaptureError:
        raise
    except Exception as error:
        raise _capture_error(model, example_inputs, error) from error
    finally:
        if isinstance(model, CapturedModule):
            if training:
                model.train()
        else:
            for module in training:
                module.training = True


def example_inputs_of(module: nn.Module) -> tuple[Any, ...] | None:
    """The inputs a captured module was captured with, or None when it does not carry any."""
    meta: Mapping[str, Any] = getattr(module, "meta", {})
    return meta.get("example_inputs")


def _from_program(program: ExportedProgram, dynamic_shapes: Any) -> CapturedModule:
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    inputs = program.example_inputs
    if inputs and inputs[1]:
        raise CaptureError("the model was exported with keyword inputs; export it with positional inputs only")
    meta = {"example_inputs": inputs[0] if inputs else None, "dynamic_shapes": dynamic_shapes}
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_module" and not node.users:
            graph.erase_node(node)  # Shape guards; whoever runs the graph checks its inputs.
    inline_grad_modes(module)
    own_state(module)
    return captured_module(module, graph, meta)


_ADVICE = (
    (
        "data-dependent",
        "the shape or a branch depends on the values of a tensor; use fixed shapes, torch.where or masks",
    ),
    ("GuardOnDataDependentSymNode", "a branch depends on the values of a tensor; use torch.where or masks"),
    ("dynamic_shapes", "the sizes declared dynamic do not fit this model; declare fewer of them, or use Dim.AUTO"),
    ("Constraints violated", "a size declared dynamic is fixed by the model; do not declare it dynamic"),
)


def _capture_error(model: nn.Module, example_inputs: tuple[Any, ...], error: Exception) -> CaptureError:
    """Tells a model that does not even run on its inputs from one that torch.export cannot follow."""
    name = type(model).__name__
    try:
        with torch.no_grad():
            model(*example_inputs)
    except Exception as failure:
        shapes = ", ".join(_describe(value) for value in example_inputs)
        return CaptureError(
            f"{name} does not run on the example input ({shapes}): {_first_line(failure)}{_where(failure)}; "
            "give inputs that the model's forward accepts"
        )
    text = f"{type(error).__name__}: {error}"
    advice = next((hint for key, hint in _ADVICE if key in text), "rewrite that line with torch operators only")
    return CaptureError(f"cannot capture {name}: {_first_line(error)}{_where(error)}; {advice}")


def _describe(value: Any) -> str:
    return "x".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".;")


def _where(error: Exception) -> str:
    """The innermost line of the user's own code in the traceback or in the message, as `` at file.py:12``."""
    inside_torch = str(Path(torch.__file__).parent)
    here = str(Path(__file__).parent)
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    frames += [(file, int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+)', str(error))]
    frames = [
        (file, line)
        for file, line in frames
        if not file.startswith((inside_torch, here, "<")) and os.path.exists(file) and "/lib/python" not in file
    ] or [
        (file, line) for file, line in frames if not file.startswith((inside_torch, here, "<")) and os.path.exists(file)
    ]
    return f" at {frames[-1][0]}:{frames[-1][1]}" if frames else ""
