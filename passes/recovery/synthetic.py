"""Calibration inputs for where there are no data: noise, dead leaves, or inputs that match the network's own statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.graph_module import CapturedModule
from ..canonicalize import canonicalize
from ..check_inputs import check_inputs, resized
from ..index_ranges import index_ranges
from .calibration import Calibration, examples_in, takes
from .dead_leaves import dead_leaves
from .matching import divergence, matched, norms_with_statistics
from .views import crops

__all__ = ["KINDS", "Synthetic", "synthetic_calibration"]

KINDS = ("synthetic", "matched", "leaves", "noise")

_DEVIATIONS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Those that are compared where none is given."""
_JUDGED = 8
"""Images that they are compared on."""


@dataclass(frozen=True)
class Synthetic:
    """How synthetic inputs are made.

    Attributes:
        kind: ``noise``: normally distributed numbers; ``leaves``: images of dead leaves; ``matched``: the same, changed until
            what they give has the statistics that the network's batch normalisations store; ``synthetic``: the best of
            these that the network allows. Whole numbers and masks are random within what the model takes.
        images: how many inputs, if the network's batch may vary or is 1; else as many batches as hold these.
        steps: of gradient descent, for matched inputs.
        views: of every matched image: itself, and so many less one parts of it, scaled and some mirrored, see `views.crops`.
            A layer is told by more output positions then, at the price of a forward pass.
        mean: of the inputs.
        deviation: of the inputs; None: 1, or, where there are stored statistics, that which fits these best.

    Raises:
        InputError: one of them is out of range.
    """

    kind: str = "synthetic"
    images: int = 32
    steps: int = 40
    views: int = 4
    mean: float = 0.0
    deviation: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"there are no synthetic inputs called '{self.kind}'; choose one of {', '.join(KINDS)}")
        for name in ("images", "steps", "views"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number from 1")
        if not _is_number(self.mean):
            raise InputError(f"mean is {self.mean!r}; give a number")
        if self.deviation is not None and not (_is_number(self.deviation) and self.deviation > 0):
            raise InputError(f"deviation is {self.deviation!r}; give a number above 0")


def synthetic_calibration(
    module: CapturedModule, example: Sequence[Any], options: Synthetic, seed: int = 0
) -> Calibration:
    """Inputs of the example's kinds and sizes, but for the batch.

    Args:
        module: captured.
        example: positional inputs of one call.
        options: what inputs.
        seed: of all that is random.

    Raises:
        InputError: matched inputs are asked for and the network stores no statistics, or leaves and none of its inputs is an
            image.
    """
    leaves = pytree.tree_leaves(tuple(example))
    canonical = canonicalize(module)
    kind = _possible(options.kind, canonical, leaves)
    batches = _batches(module, tuple(example), options.images)
    with stage("making synthetic calibration inputs"):
        made = [_drawn(canonical, inputs, kind, options, seed + number) for number, inputs in enumerate(batches)]
    count, words = sum(map(examples_in, made)), _WORDS[kind].format(steps=options.steps)
    if kind == "matched" and options.views > 1 and any(map(_is_image, leaves)):
        words += f", in {options.views} views each"
        made += [_viewed(call, seed + view) for view in range(1, options.views) for call in made]
    return Calibration(tuple(made), f"{count} synthetic inputs: {words}")


_WORDS = {
    "noise": "noise",
    "leaves": "dead leaves",
    "matched": "drawn to match the stored statistics in {steps} steps",
}


def _possible(kind: str, canonical: CapturedModule, leaves: Sequence[Any]) -> str:
    """The kind that ``synthetic`` is for this network. Raises InputError for one that it does not allow."""
    stores, sees = bool(norms_with_statistics(canonical)), any(map(_is_image, leaves))
    if kind == "matched" and not stores:
        raise InputError("no inputs can match the network's statistics: it has no batch normalisation that stores any")
    if kind == "leaves" and not sees:
        raise InputError("none of the model's inputs is a batch of images; choose noise")
    if kind != "synthetic":
        return kind
    return "matched" if stores else "leaves" if sees else "noise"


def _batches(module: CapturedModule, example: tuple[Any, ...], images: int) -> list[tuple[Any, ...]]:
    """Examples of calls that hold so many images: one of a larger batch if the network takes it, else several."""
    leaves, structure = pytree.tree_flatten(example)
    batched = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]
    size = len(batched[0]) if batched else 1
    larger = tuple(
        pytree.tree_unflatten(
            [
                resized(leaf, (images, *leaf.shape[1:]))
                if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size
                else leaf
                for leaf in leaves
            ],
            structure,
        )
    )
    return [larger] if takes(module, larger) else [example] * math.ceil(images / max(1, size))


def _drawn(
    canonical: CapturedModule, example: tuple[Any, ...], kind: str, options: Synthetic, seed: int
) -> tuple[Any, ...]:
    """One call."""
    drawn = check_inputs(example, ("random",), seed=seed, ranges=index_ranges(canonical))["random"]
    leaves, structure = pytree.tree_flatten(drawn)
    unit = [_unit(leaf, kind, seed) for leaf in leaves]
    stores = bool(norms_with_statistics(canonical))
    deviation = options.deviation or (_fitting(canonical, unit, options.mean) if stores else 1.0)
    values = [_scaled(leaf, options.mean, deviation) for leaf in unit]
    if kind == "matched":
        values = matched(canonical, values, options.steps, seed)
    return tuple(pytree.tree_unflatten(values, structure))


def _viewed(call: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    """The same call with parts of its images; several images of one example are cut alike."""
    leaves, structure = pytree.tree_flatten(call)
    parts = [crops(leaf, len(leaf), seed) if _is_image(leaf) else leaf for leaf in leaves]
    return tuple(pytree.tree_unflatten(parts, structure))


def _unit(leaf: Any, kind: str, seed: int) -> Any:
    """Numbers of mean 0 and deviation 1."""
    if kind != "noise" and _is_image(leaf):
        return dead_leaves(tuple(leaf.shape), seed).to(leaf.device, leaf.dtype)
    return leaf


def _scaled(leaf: Any, mean: float, deviation: float) -> Any:
    return leaf * deviation + mean if _is_real(leaf) else leaf


def _fitting(canonical: CapturedModule, unit: Sequence[Any], mean: float) -> float:
    """The deviation at which inputs fit the stored statistics best."""
    few = [leaf[:_JUDGED] if _is_image(leaf) and len(leaf) > _JUDGED else leaf for leaf in unit]
    return min(
        _DEVIATIONS, key=lambda deviation: divergence(canonical, [_scaled(leaf, mean, deviation) for leaf in few])
    )


def _is_image(leaf: Any) -> bool:
    return _is_real(leaf) and leaf.dim() == 4


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
