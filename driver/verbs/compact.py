"""``reconvene compact``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...frontend.program_file import check_onnx
from ...passes.plan import Plan
from ...passes.pruning.structure_rules import structure_rules
from .. import api
from ..answer import Answer
from ..masks import read_masks
from ..models import load_model
from ..outputs import check_different, suffixed
from .compacted import Outputs, compacted

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene compact`` is told; see its help."""

    model: str
    outputs: Outputs
    masks: Path | None = None
    apply: Path | None = None
    structure: Mapping[str, str] | None = None
    fold: bool = False
    inputs: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    seed: int = 0
    weights: str | None = None


def run(request: Request) -> Answer:
    outputs = request.outputs
    if request.structure is not None:
        structure_rules(request.structure)
    outputs.checked(Path("model.pt2"))
    check_different(request.model, *outputs.places())
    masks = None if request.masks is None else read_masks(request.masks)
    plan = None if request.apply is None else Plan.load(request.apply)
    loaded = load_model(request.model, request.inputs, request.seed, request.dynamic, weights=request.weights)
    if outputs.onnx is not None:
        check_onnx(loaded.module)
    places = outputs.checked(suffixed(loaded.beside, "-compact.pt2"))
    found = api.compact(
        loaded.module,
        loaded.example_inputs,
        masks,
        plan=plan,
        structure=request.structure,
        fold_batch_norm=request.fold,
    )
    return compacted(loaded, found, places)
