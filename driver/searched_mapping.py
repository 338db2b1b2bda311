"""A search for what every layer takes, on what there is: images held out of training, a person's inputs, or synthetic ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..frontend.base.arrays import as_tensors
from ..frontend.base.errors import InputError
from ..passes.pruning.mapping import MappingRules, Times, known_layers, stays_dense
from ..passes.pruning.search.one_shot import OneShot
from ..passes.pruning.search.structure_search import StructureSearch, map_by_search
from ..passes.recovery.calibration import given_calibration
from ..passes.recovery.synthetic import Synthetic, synthetic_calibration
from ..passes.weight_views import weight_views
from .shrinking.held_out import calibration as some_images
from .shrinking.held_out import split
from .shrinking.judge import Judge
from .training.hardware import Hardware, computing
from .training.sources import Data, Way, source_of
from .training.tasks import CLASSIFICATION, Measure

if TYPE_CHECKING:
    from ..frontend.graph_module import CapturedModule
    from ..passes.pruning.structure_plan import PlannedLayer, Scalar
    from .recovering import CalibrationInputs

__all__ = ["HeldOut", "searched"]

_BATCH = 256
_CALIBRATION = 64
"""Images that statistics are estimated on, and errors of outputs."""


@dataclass(frozen=True)
class HeldOut:
    """Accuracy on images that are held out of what a network is trained on. Test images have no part in it.

    Attributes:
        training: images, or a ``Dataset`` of pairs of inputs and target.
        share: of them that is held out: the same ones that `reconvene shrink` holds out.
        images: of those that are looked at; 0 for all.
        measure: whose metric it is.
        machine: where and how to compute.

    Raises:
        InputError: a number is out of range.
    """

    training: Data = field(repr=False)
    share: float = 0.1
    images: int = 1000
    measure: Measure = CLASSIFICATION
    machine: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"held_out {self.share} is not a share between 0 and 1")
        if self.images < 0:
            raise InputError(f"{self.images} images make no sense; give 1 or more, or 0 for all")


def searched(
    module: CapturedModule,
    inputs: tuple[Any, ...],
    times: Times,
    rules: MappingRules,
    asked: StructureSearch,
    given: CalibrationInputs | None,
    held_out: HeldOut | None,
    seed: int,
) -> tuple[tuple[PlannedLayer, ...], dict[str, Scalar]]:
    """What every layer takes, and what the plan is to say of how that was found.

    Args:
        module: canonical.
        inputs: of one call.
        times, rules, asked: see `map_by_search`.
        given: calibration inputs; None for synthetic ones, or some of the images that are left to train on.
        held_out: what accuracy is told on, if anything.
        seed: of all that is random.

    Raises:
        InputError: see `map_by_search`; or inputs or data cannot be used.
    """
    views = weight_views(module)
    known_layers(views, times, rules)
    offered = {view: rules.every(view)[1] for view in views if not stays_dense(view, times, rules)}
    fitting = {view: tuple(one for one in some if not one.fits(view.shape)) for view, some in offered.items()}
    calls, told = _calls(module, inputs, given, held_out, seed)
    judge = None if held_out is None else _accuracy(module, held_out)
    worth = OneShot(module, fitting, calls, judge, seed)
    found = map_by_search(views, times, rules, asked, worth, seed)
    made: dict[str, Scalar] = {
        "method": "search",
        "budget": asked.budget,
        "latency": asked.latency,
        "shares": ", ".join(f"{share:g}" for share in asked.shares),
        "quality": "nearness of outputs" if held_out is None else held_out.measure.name,
        "on": told,
        "found": found.quality,
        "begun at": found.begun,
        "tried": found.asked,
        "seed": seed,
    }
    return found.layers, made


def _calls(
    module: CapturedModule,
    inputs: tuple[Any, ...],
    given: CalibrationInputs | None,
    held_out: HeldOut | None,
    seed: int,
) -> tuple[tuple[tuple[Any, ...], ...], str]:
    """Calibration inputs, and what quality is told on, in words."""
    if held_out is not None:
        if given is not None:
            raise InputError(
                "calibration inputs beside held_out have no meaning, images are taken; leave one of them out"
            )
        rest, held = split(held_out.training, held_out.share)
        batches = some_images(rest, _CALIBRATION, seed)
        calls = given_calibration(module, [batch[0] for batch in batches], inputs).calls
        return calls, f"{_looked_at(held, held_out)} images held out of training"
    chosen = "synthetic" if given is None else given
    chosen = Synthetic(chosen) if isinstance(chosen, str) else chosen
    if isinstance(chosen, Synthetic):
        made = synthetic_calibration(module, inputs, chosen, seed)
    else:
        made = given_calibration(module, as_tensors(chosen), inputs)
    return made.calls, made.description


def _looked_at(held: Data, asked: HeldOut) -> int:
    there = len(held)  # type: ignore[arg-type]
    return min(asked.images or there, there)


def _accuracy(module: CapturedModule, asked: HeldOut) -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], float]:
    """Of a network with zeros and with statistics of its own, on items that were held out."""
    device = asked.machine.checked()
    _, held = split(asked.training, asked.share)
    source = source_of(held, Way(_BATCH, _looked_at(held, asked)), device)
    judge = Judge(module, asked.machine, asked.measure)

    def told(masks: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> float:
        with computing(asked.machine, device):
            return judge(source, masks, statistics)

    return told
