"""What `prune` does beside the removal: layers that read fewer channels are solved anew on calibration inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..frontend.arguments import Inputs
from ..frontend.base.arrays import as_tensors
from ..frontend.base.errors import InputError
from ..passes.pruning.methods.base import Aim, ChannelMethod, Pruned
from ..passes.recovery.calibration import Calibration, given_calibration
from ..passes.recovery.least_squares import LeastSquares, Recovery, recover
from ..passes.recovery.synthetic import Synthetic, synthetic_calibration
from .reports.report import Report

if TYPE_CHECKING:
    from ..frontend.graph_module import CapturedModule

__all__ = [
    "LEAST_SQUARES",
    "CalibrationInputs",
    "Recovering",
    "calibration_for",
    "recovered",
    "recovering",
    "with_recovery",
]

CalibrationInputs = str | Synthetic | Inputs | list[Inputs]
"""A kind of synthetic inputs, or how they are made, or a person's own: of one call, or of each call in a list."""

LEAST_SQUARES = "least-squares"
"""What `recover` may be, by name."""


@dataclass(frozen=True)
class Recovering:
    """What is asked for beside the removal.

    Attributes:
        options: of the recovery; None for none.
        calibration: what layers are looked at, and solved, on.
    """

    options: LeastSquares | None
    calibration: Synthetic | Inputs | list[Inputs]

    def told(self) -> dict[str, Any]:
        """What the report says was asked for; nothing if nothing was."""
        return {} if self.options is None else {"recover": dataclasses.asdict(self.options)}


def recovering(
    recover: str | LeastSquares | None, calibration: CalibrationInputs | None, method: ChannelMethod, aim: Aim
) -> Recovering:
    """What `prune` is asked for by these arguments. Raises InputError where they make no sense."""
    if isinstance(recover, str) and recover != LEAST_SQUARES:
        raise InputError(f"there is no recovery '{recover}'; choose {LEAST_SQUARES}")
    options = LeastSquares() if isinstance(recover, str) else recover
    if options is None and calibration is not None and not method.looks_at_calls:
        raise InputError(
            f"calibration inputs have no meaning for the method {method.name} without recover='{LEAST_SQUARES}'; leave them out"
        )
    if options is not None and not method.keeps_weights:
        raise InputError(
            f"the method {method.name} gives layers new initial weights, so there is nothing to recover; choose"
            " reinitialize='none', or leave recover out"
        )
    if options is not None and aim.fold:
        raise InputError("normalisation cannot be folded before recovery; recover, then compact with fold_batch_norm")
    if options is not None and aim.structures:
        raise InputError(
            "weights that are solved anew are not zero any more; recover first, then prune with a structure"
        )
    chosen = "synthetic" if calibration is None else calibration
    return Recovering(options, Synthetic(chosen) if isinstance(chosen, str) else as_tensors(chosen))


def calibration_for(
    module: CapturedModule, example: Sequence[Any], asked: Recovering, method: ChannelMethod, seed: int
) -> Calibration | None:
    """The inputs, if anything asks for them. Raises InputError if they cannot be made, or do not fit."""
    if asked.options is None and not method.looks_at_calls:
        return None
    if isinstance(asked.calibration, Synthetic):
        return synthetic_calibration(module, example, asked.calibration, seed)
    return given_calibration(module, asked.calibration, example)


def recovered(
    module: CapturedModule, found: Pruned, calibration: Calibration, options: LeastSquares, seed: int
) -> tuple[Pruned, Recovery]:
    """What the method left, with its layers solved anew. The certificate stays that of the removal."""
    done = found.compaction
    small, recovery = recover(
        module, done.module, done.plan, calibration.calls, options, calibration=calibration.description, seed=seed
    )
    seconds = {**done.seconds, "recovery": recovery.seconds}
    return dataclasses.replace(found, compaction=dataclasses.replace(done, module=small, seconds=seconds)), recovery


def with_recovery(report: Report, recovery: Recovery) -> Report:
    """The report with what was solved anew."""
    return dataclasses.replace(report, recovery=recovery, notes=(*report.notes, recovery.summary))
