"""One line for the person whose model cannot be captured: what, where in their code, and what to change."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .base.errors import CaptureError
from .outside import preserved_outside
from .snapshot import preserved

__all__ = ["capture_error", "first_line", "user_line", "written_parameter"]

_WRITES = r"leaf Variable that requires grad .* in-place|out=\.\.\. arguments don't support automatic differentiation"
"""What torch says of a write to a parameter with gradients."""

_ADVICE = (
    (
        "data-dependent",
        "the shape or a branch depends on the values of a tensor; use fixed shapes, torch.where or masks",
    ),
    ("GuardOnDataDependentSymNode", "a branch depends on the values of a tensor; use torch.where or masks"),
    ("dynamic_shapes", "the sizes declared dynamic do not fit this model; declare fewer of them, or use Dim.AUTO"),
    ("Constraints violated", "a size declared dynamic is fixed by the model; do not declare it dynamic"),
)


def capture_error(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> CaptureError:
    """Tells a model that does not even run on its inputs from one that torch.export cannot follow."""
    name = type(model).__name__
    try:
        with preserved(model, (args, kwargs), parameters=True), preserved_outside(model), torch.no_grad():
            before = {title: parameter._version for title, parameter in model.named_parameters()}
            model(*args, **kwargs)
            written = [
                title for title, parameter in model.named_parameters() if parameter._version != before.get(title)
            ]
    except Exception as failure:
        shapes = ", ".join(_describe(value) for value in pytree.tree_leaves((args, kwargs)))
        return CaptureError(
            f"{name} does not run on the example input ({shapes}): {first_line(failure)}{user_line(failure)}; "
            "give inputs that the model's forward accepts"
        )
    if written and re.search(_WRITES, str(error)):
        return CaptureError(f"cannot capture {name}: {written_parameter(written[0], user_line(error))}")
    text = f"{type(error).__name__}: {error}"
    advice = next((hint for key, hint in _ADVICE if key in text), "rewrite that line with torch operators only")
    return CaptureError(f"cannot capture {name}: {first_line(error)}{user_line(error)}; {advice}")


def written_parameter(name: str, line: str) -> str:
    """What is wrong with a write to a parameter at a line (`` at file.py:12``) where gradients are on."""
    return (
        f"forward writes to the parameter '{name}'{line} outside of torch.no_grad(), which PyTorch refuses where gradients are"
        " on; write under torch.no_grad(), or register a buffer"
    )


def _describe(value: Any) -> str:
    return "x".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def first_line(error: Exception) -> str:
    """What an error says first, without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".;")


def user_line(error: Exception) -> str:
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
