"""``reconvene capture``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.data.facts import Colours
from ...frontend.image_bytes import on_image_bytes
from ...frontend.program_file import check_onnx, export_onnx, save_program
from ..answer import Answer, files_line, says
from ..models import LoadedModel, load_model
from ..outputs import check_different, check_file, suffixed
from ..own_data import parse_colours

__all__ = ["Request", "parse_colours", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene capture`` is told; see its help."""

    model: str
    inputs: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    output: Path | None = None
    onnx: Path | None = None
    image_bytes: str | None = None
    """The order of axes of images that it is to take as bytes."""
    colours: Colours | None = None
    """What these are normalised with; None: as the model's file says."""
    seed: int = 0


def run(request: Request) -> Answer:
    output, onnx = request.output, request.onnx
    check_file(output)
    check_file(onnx)
    check_different(request.model, output, onnx)
    loaded = load_model(request.model, request.inputs, request.seed, request.dynamic)
    if request.image_bytes is not None:
        loaded = _on_bytes(loaded, request)
    if onnx is not None:
        check_onnx(loaded.module)
    path = output or suffixed(loaded.beside, ".pt2")
    check_file(path)
    files = {"model": str(path)}
    with stage("writing"):
        save_program(loaded.module, loaded.example_inputs, path)
        if onnx is not None:
            export_onnx(loaded.module, loaded.example_inputs, onnx)
            files["onnx"] = str(onnx)
    operators = sum(node.op == "call_function" for node in loaded.module.graph.nodes)
    parameters = sum(parameter.numel() for parameter in loaded.module.parameters())
    shapes = [list(value.shape) for value in tensors(loaded.example_inputs)]
    data = {"model": loaded.name, "operators": operators, "parameters": parameters, "inputs": shapes, "files": files}
    return Answer(data, says(f"{loaded.name}: {operators} operators, {parameters:,} parameters", files_line(files)))


def _on_bytes(loaded: LoadedModel, request: Request) -> LoadedModel:
    """The model behind what normalises bytes. Raises InputError if nobody says how."""
    colours = request.colours or (None if loaded.data is None else loaded.data.colours)
    if colours is None:
        raise InputError(
            "the model does not say what its images were normalised with; give --mean and --std, as it was trained with"
        )
    module = on_image_bytes(loaded.module, colours.mean, colours.std, order=request.image_bytes or "")
    return replace(loaded, module=module, example_inputs=module.meta["example_inputs"])


def tensors(values: Any) -> list[torch.Tensor]:
    """The tensors among one output or several."""
    entries = values if isinstance(values, list | tuple) else [values]
    return [entry for entry in entries if isinstance(entry, torch.Tensor)]
