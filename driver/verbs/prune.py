"""``reconvene prune``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.program_file import check_onnx
from ...passes.pruning.scores import Evidence
from .. import api
from ..answer import Answer
from ..asked import Asked, asked
from ..models import load_model, named_object
from ..outputs import check_different, suffixed
from ..scoring_data import scoring_batches
from .compacted import Outputs, compacted
from .recovery import recovery_options

__all__ = ["Request", "run", "shares_asked"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene prune`` is told; see its help."""

    model: str
    outputs: Outputs
    method: str = "magnitude"
    settings: Mapping[str, Any] | None = None
    """Of the method."""
    sparsity: float | Mapping[str, float] = 0.5
    """Of all layers; or by pattern of names."""
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
    weights: str | None = None
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
            method_asked(self.method), self.sparsity, self.target, structure=self.structure, latency=self.latency,
            timed_by=self.timed_by, scope=self.scope, channel_multiple=self.channel_multiple,
            minimum_channels=self.minimum_channels, ignore=self.ignore, fold=self.fold, recover=recover,
            calibration=calibration, options=self.settings or {},
        )  # fmt: skip


def shares_asked(given: Sequence[str]) -> dict[str, float]:
    """``PATTERN=SHARE`` of each layer. Raises InputError for what is none."""
    found: dict[str, float] = {}
    for text in given:
        pattern, _, share = text.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            number = -1.0
        if not pattern or not 0 <= number < 1:
            raise InputError(f"'{text}' is no share of layers; write PATTERN=SHARE, such as 'layer1.*=0.5'")
        if pattern in found:
            raise InputError(f"two shares were given for '{pattern}'; give one")
        found[pattern] = number
    return found


def method_asked(name: str) -> Any:
    """A method's name, or the function that ``file.py:function`` names. Raises InputError where that is none."""
    if ":" not in name:
        return name
    found = named_object(name, "a function that scores weights")
    if not callable(found):
        raise InputError(f"'{name}' is a {type(found).__name__}, no function that scores weights")
    return found


def run(request: Request) -> Answer:
    # What can be found wrong at once is, before minutes of loading.
    asked, outputs = request.asked(), request.outputs
    outputs.checked(Path("model.pt2"))
    check_different(request.model, *outputs.places())
    loaded = load_model(
        request.model,
        request.inputs,
        request.seed,
        request.dynamic,
        dataset=request.dataset,
        width=request.width,
        weights=request.weights,
    )
    if outputs.onnx is not None:
        check_onnx(loaded.module)
    places = outputs.checked(suffixed(loaded.beside, "-pruned.pt2"))
    batches = scoring_batches(
        loaded, asked.method.scored_by, request.dataset, request.data, request.synthetic, request.seed
    )
    evidence = Evidence(batches=batches, seed=request.seed)
    return compacted(loaded, api.prune_as_asked(loaded.module, loaded.example_inputs, asked, evidence), places)
