"""A network in PyTorch and its compiled code, side by side on the items for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...frontend.base.errors import InputError
from ...frontend.base.progress import track
from ...frontend.graph_module import CapturedModule
from .sources import Batch, Source
from .tasks import Measure

__all__ = ["Compared", "Compiled", "Standing", "compared"]

_TOP = 5
_MORE_THAN = 10
"""Classes, for which the five likeliest are told as well."""


@dataclass(frozen=True)
class Compiled:
    """Compiled code, for calls of one size."""

    batch: int
    """Items in a call."""
    run: Callable[[Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]], Sequence[Any]]
    """What the calls give, each with inputs by position and by name."""


@dataclass(frozen=True)
class Standing:
    """How one of the two did."""

    loss: float
    """The mean over items."""
    metric: float
    """The same of the task's metric: the share of right classes, 0..1."""
    top5: float | None
    """Share of items whose class is among the five likeliest; None for ten classes or less, and for other tasks."""


@dataclass(frozen=True)
class Compared:
    """Both beside each other; None for one that is not there."""

    items: int
    metric: str
    pytorch: Standing | None
    compiled: Standing | None
    agreement: float | None
    """Share of items that both give the same class; None where no classes are told apart."""
    largest_difference: float | None
    """Of all numbers that they give, absolute."""


def compared(module: CapturedModule | None, compiled: Compiled | None, source: Source, measure: Measure) -> Compared:
    """Runs both over all items, each once.

    Args:
        module: in inference mode, on the CPU.
        compiled: its code.
        source: of the items.
        measure: loss and metric.

    Raises:
        InputError: they do not take the inputs, or give what the metric does not take.
    """
    sides = {"pytorch": _Tally(measure), "compiled": _Tally(measure)}
    agreed, farthest, items = 0, 0.0, 0
    classified = True
    for batch in track(source.plain(), "evaluating", None):
        items += batch.count
        outputs = {}
        if module is not None:
            with torch.inference_mode():
                outputs["pytorch"] = module(*batch.inputs, **batch.named)
        if compiled is not None:
            outputs["compiled"] = _by_code(compiled, batch)
        for name, given in outputs.items():
            sides[name].add(given, batch)
        if len(outputs) == 2:
            one, other = outputs.values()
            farthest = max(farthest, _distance(one, other))
            classified = classified and measure.metric is None and isinstance(one, Tensor) and one.dim() == 2
            agreed += int((one.argmax(1) == other.argmax(1)).sum()) if classified else 0
    both = module is not None and compiled is not None
    return Compared(
        items,
        measure.name,
        sides["pytorch"].standing() if module is not None else None,
        sides["compiled"].standing() if compiled is not None else None,
        agreed / items if both and classified else None,
        farthest if both else None,
    )


class _Tally:
    """Sums over items."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._loss = self._metric = 0.0
        self._items = self._among = 0
        self._has_top = False

    def add(self, outputs: Any, batch: Batch) -> None:
        self._loss += self._measure.total_loss(outputs, batch)
        self._metric += self._measure.total(outputs, batch)
        self._items += batch.count
        if self._measure.metric is None and isinstance(outputs, Tensor) and outputs.dim() == 2:
            self._has_top = outputs.shape[1] > _MORE_THAN
            if self._has_top:
                self._among += int((outputs.topk(_TOP, 1).indices == batch.targets[:, None]).any(1).sum())

    def standing(self) -> Standing:
        top = self._among / self._items if self._has_top else None
        return Standing(self._loss / self._items, self._metric / self._items, top)


def _by_code(compiled: Compiled, batch: Batch) -> Any:
    """What compiled code gives for all items of a batch, in calls of its own size; the last is filled up with its last item."""
    calls = list(_calls(batch, compiled.batch))
    results = compiled.run(calls)
    flat = [pytree.tree_flatten(result) for result in results]
    leaves = []
    for parts in zip(*(leaves for leaves, _ in flat), strict=True):
        if not all(isinstance(part, Tensor) and part.dim() and len(part) == compiled.batch for part in parts):
            raise InputError(
                "compiled code gives something without an axis for the items; only batches can be evaluated"
            )
        leaves.append(torch.cat(parts)[: batch.count])
    return pytree.tree_unflatten(leaves, flat[0][1])


def _calls(batch: Batch, size: int) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    for start in range(0, batch.count, size):

        def part(value: Any, start: int = start) -> Any:
            if not isinstance(value, Tensor) or not value.dim() or len(value) != batch.count:
                return value
            chosen = value[start : start + size]
            missing = size - len(chosen)
            return torch.cat([chosen, chosen[-1:].expand(missing, *chosen.shape[1:])]) if missing else chosen

        yield pytree.tree_map(part, (batch.inputs, dict(batch.named)))


def _distance(one: Any, other: Any) -> float:
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True)
    return max(
        (float((a - b).abs().max()) for a, b in pairs if isinstance(a, Tensor) and a.is_floating_point()), default=0.0
    )
