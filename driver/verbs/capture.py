"""``reconvene capture``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.data.facts import DataFacts
from ...frontend.image_bytes import check_order, on_image_bytes
from ...frontend.program_file import check_onnx, export_onnx, save_program
from ..answer import Answer, files_line, says
from ..models import LoadedModel, load_model
from ..outputs import check_different, check_file, suffixed
from ..own_data import parse_channels
from ..recording import read_names, recorded

__all__ = ["Request", "parse_channels", "run"]


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
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation of each channel of these; None: as the model's file says."""
    seed: int = 0
    weights: str | None = None
    classes: Path | None = None
    """A file with the name of one output a line, to be recorded with the normalisation."""


def run(request: Request) -> Answer:
    output, onnx = request.output, request.onnx
    check_file(output)
    check_file(onnx)
    check_different(request.model, output, onnx)
    if request.image_bytes is not None:
        check_order(request.image_bytes)
    loaded = load_model(request.model, request.inputs, request.seed, request.dynamic, weights=request.weights)
    path = output or suffixed(loaded.beside, ".pt2" if request.image_bytes is None else "-bytes.pt2")
    copies = request.classes is None and output is None and path.resolve() == Path(request.model).resolve()
    if not (copies and onnx is not None):
        # A file is captured already; only what else it is to become is written.
        check_different(request.model, path, onnx)
        check_file(path)
    if request.classes is not None:
        loaded = replace(loaded, data=_recorded(loaded, request))
    if request.image_bytes is not None:
        loaded = _on_bytes(loaded, request)
    if onnx is not None:
        check_onnx(loaded.module)
    files: dict[str, str] = {}
    with stage("writing"):
        if not copies:
            # What was found out of a file's program holds of its copy.
            notes: dict[str, Any] = {
                "certificate": loaded.certificate,
                "compute": loaded.compute,
                "origin": loaded.origin,
            }
            save_program(loaded.module, loaded.example_inputs, path, data=loaded.data, **notes)
            files["model"] = str(path)
        if onnx is not None:
            export_onnx(loaded.module, loaded.example_inputs, onnx)
            files["onnx"] = str(onnx)
    operators = sum(node.op == "call_function" for node in loaded.module.graph.nodes)
    parameters = sum(parameter.numel() for parameter in loaded.module.parameters())
    shapes = [list(value.shape) for value in tensors(loaded.example_inputs)]
    data = {"model": loaded.name, "operators": operators, "parameters": parameters, "inputs": shapes, "files": files}
    return Answer(data, says(f"{loaded.name}: {operators} operators, {parameters:,} parameters", files_line(files)))


def _recorded(loaded: LoadedModel, request: Request) -> DataFacts:
    """What the file is to say of the model's images. Raises InputError where that makes no sense."""
    assert request.classes is not None
    # What the model is to do itself, of as many channels as it takes, is not recorded.
    mean, std = (request.normalisation if request.image_bytes is None else None) or (None, None)
    return recorded(loaded.module, read_names(request.classes), mean, std, loaded.data, str(request.classes))


def _on_bytes(loaded: LoadedModel, request: Request) -> LoadedModel:
    """The model behind what normalises bytes. Raises InputError if nobody says how."""
    known = None if loaded.data is None else loaded.data.colours
    given = request.normalisation or (None if known is None else (known.mean, known.std))
    if given is None:
        raise InputError(
            "the model does not say what its images were normalised with; give --mean and --std, as it was trained with"
        )
    module = on_image_bytes(loaded.module, *given, order=request.image_bytes or "")
    # Nobody normalises its images outside any more.
    data = None if loaded.data is None else replace(loaded.data, colours=None)
    # The certificate is of another program; this one multiplies as often, and came about as that one.
    return replace(loaded, module=module, example_inputs=module.meta["example_inputs"], data=data, certificate=None)


def tensors(values: Any) -> list[torch.Tensor]:
    """The tensors among one output or several."""
    entries = values if isinstance(values, list | tuple) else [values]
    return [entry for entry in entries if isinstance(entry, torch.Tensor)]
