"""``reconvene compact``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...frontend.program_file import check_onnx
from ...passes.plan import Plan
from .. import api
from ..answer import Answer
from ..masks import read_masks
from ..models import load_model
from ..outputs import check_different, suffixed
from .compacted import Outputs, compacted

__all__ = ["run"]


def run(
    model: str,
    inputs: Sequence[str],
    masks: Path | None,
    apply: Path | None,
    outputs: Outputs,
    seed: int,
    fold: bool,
    dynamic: Sequence[str] = (),
) -> Answer:
    outputs.checked(Path("model.pt2"))
    check_different(model, *outputs.places())
    zeros = None if masks is None else read_masks(masks)
    plan = None if apply is None else Plan.load(apply)
    loaded = load_model(model, inputs, seed, dynamic)
    if outputs.onnx is not None:
        check_onnx(loaded.module)
    places = outputs.checked(suffixed(loaded.beside, "-compact.pt2"))
    found = api.compact(loaded.module, loaded.example_inputs, zeros, plan=plan, fold_batch_norm=fold)
    return compacted(loaded, found, places)
