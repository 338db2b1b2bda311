"""``reconvene prune``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...frontend.program_file import check_onnx
from ...passes.pruning.methods.reconvene import recipe_options
from .. import api
from ..answer import Answer
from ..models import load_model
from ..outputs import check_different, suffixed
from ..scoring_data import scoring_batches
from .compacted import Outputs, compacted

__all__ = ["PruningData", "run"]


def run(
    model: str,
    inputs: Sequence[str],
    method: str,
    sparsity: float,
    target: str | None,
    options: Mapping[str, Any],
    data: PruningData,
    outputs: Outputs,
) -> Answer:
    # What can be found wrong at once is, before minutes of loading.
    api.checked_sparsity(sparsity)
    api.checked_method(method)
    api.multiple_of(target)
    outputs.checked(Path("model.pt2"))
    check_different(model, *outputs.places())
    if method == api.RECONVENE:
        recipe_options(data.settings)
    loaded = load_model(model, inputs, options["seed"], data.dynamic, dataset=data.dataset, width=data.width)
    if outputs.onnx is not None:
        check_onnx(loaded.module)
    places = outputs.checked(suffixed(loaded.beside, "-pruned.pt2"))
    score = str(data.settings.get("score", "magnitude")) if method == api.RECONVENE else method
    batches = scoring_batches(loaded, score, data.dataset, data.folder, data.synthetic, options["seed"])
    found = api.prune(
        loaded.module, loaded.example_inputs, method, sparsity, target, batches=batches, **options, **data.settings
    )
    return compacted(loaded, found, places)


@dataclass(frozen=True)
class PruningData:
    """What `prune` is told beside the channels: a data set, the settings of the method, and sizes that must vary."""

    dataset: str | None = None
    folder: Path | None = None
    width: float = 1.0
    synthetic: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dynamic: Sequence[str] = ()
