"""``reconvene prune``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...frontend.program_file import check_onnx
from ...passes.pruning.scores import Evidence
from .. import api
from ..answer import Answer
from ..asked import Asked, asked
from ..models import load_model
from ..outputs import check_different, suffixed
from ..scoring_data import scoring_batches
from .compacted import Outputs, compacted
from .recovery import recovery_options

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene prune`` is told; see its help."""

    model: str
    outputs: Outputs
    method: str = "magnitude"
    settings: Mapping[str, Any] | None = None
    """Of the method."""
    sparsity: float = 0.5
    structure: Mapping[str, str] | None = None
    """By pattern of names."""
    scope: str = "layer"
    target: str | None = None
    latency: float | None = None
    timed_by: str = "model"
    channel_multiple: int | None = None
    minimum_channels: int | None = None
    ignore: tuple[str, ...] = ()
    fold: bool = False
    inputs: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    dataset: str | None = None
    data: Path | None = None
    width: float = 1.0
    synthetic: bool = False
    recover: str | None = None
    calibration: str | None = None
    recover_settings: tuple[str, ...] = ()
    """``NAME=VALUE``, of the recovery and of synthetic calibration inputs."""
    seed: int = 0

    def asked(self) -> Asked:
        """What the API is asked for. Raises InputError if that is found wrong without the model."""
        recover, calibration = recovery_options(self.recover, self.calibration, self.recover_settings)
        return asked(
            self.method, self.sparsity, self.target, structure=self.structure, latency=self.latency,
            timed_by=self.timed_by, scope=self.scope, channel_multiple=self.channel_multiple,
            minimum_channels=self.minimum_channels, ignore=self.ignore, fold=self.fold, recover=recover,
            calibration=calibration, options=self.settings or {},
        )  # fmt: skip


def run(request: Request) -> Answer:
    # What can be found wrong at once is, before minutes of loading.
    asked, outputs = request.asked(), request.outputs
    outputs.checked(Path("model.pt2"))
    check_different(request.model, *outputs.places())
    loaded = load_model(
        request.model, request.inputs, request.seed, request.dynamic, dataset=request.dataset, width=request.width
    )
    if outputs.onnx is not None:
        check_onnx(loaded.module)
    places = outputs.checked(suffixed(loaded.beside, "-pruned.pt2"))
    batches = scoring_batches(
        loaded, asked.method.scored_by, request.dataset, request.data, request.synthetic, request.seed
    )
    evidence = Evidence(batches=batches, seed=request.seed)
    return compacted(loaded, api.prune_as_asked(loaded.module, loaded.example_inputs, asked, evidence), places)
