"""Layers that read fewer channels than before are solved anew: their outputs become those nearest to the dense network's.

In the order of the graph: every layer reads what the layers before it give that are solved already, and aims at what the same
layer gives in the dense network (Zhang et al., 2015, arXiv 1505.06798, call it asymmetric), so that what earlier layers could
not make good is made good by later ones as far as that can be. No gradients, no labels, and no training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...frontend.base.errors import InputError
from ...frontend.base.progress import track
from ...frontend.graph_module import CapturedModule, cloned
from ...frontend.writes import written_places
from ..canonicalize import canonicalize
from ..plan import Plan
from ..rules.kernel_blocks import blocks_of, stored_form
from .readers import Reader, Refusal, readers_of
from .ridge import Moments, best_ridge, solve
from .sampling import sampled
from .statistics import Norm, norms_of
from .walk import Walk

__all__ = ["LayerRecovery", "LeastSquares", "Recovery", "recover"]

STATISTICS = ("kept", "estimated")

_RIDGE = 1.0
"""Where there is but one calibration input, so that nothing can be judged on others."""


@dataclass(frozen=True)
class LeastSquares:
    """How layers are solved anew.

    Attributes:
        ridge: how strongly weights are pulled towards the old ones, as a share of the mean variance of what is read; from 0.
            None: for every layer the one that is best where it is solved on half of the inputs and judged on the others.
        statistics: of batch normalisation: ``kept``, or ``estimated`` anew.
        rows: output positions for every number that an output position reads, as far as the inputs have so many; at least 1.

    Raises:
        InputError: one of them is out of range.
    """

    ridge: float | None = None
    statistics: str = "kept"
    rows: float = 10.0

    def __post_init__(self) -> None:
        if self.statistics not in STATISTICS:
            raise InputError(f"there is no choice '{self.statistics}' of statistics; choose {' or '.join(STATISTICS)}")
        for name, least in (("ridge", 0), ("rows", 1)):
            value = getattr(self, name)
            if name == "ridge" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise InputError(f"{name} is {value!r}; give a number from {least}")


@dataclass(frozen=True)
class LayerRecovery:
    """One layer that was solved.

    Attributes:
        name: of its weight.
        columns: numbers that one output position reads.
        rows: output positions that it was solved on.
        ridge: how strongly the weights were pulled towards the old ones.
        before: the error of its outputs with what was left of its weights, see `Moments.error`.
        after: the same with the new weights.
    """

    name: str
    columns: int
    rows: int
    ridge: float
    before: float
    after: float


@dataclass(frozen=True)
class Recovery:
    """What was solved anew, and what could not be.

    Attributes:
        calibration: what the layers were solved on, for a person.
        layers: those that were solved, in the order of the graph.
        refusals: one line for each layer that was not, with the reason.
        seconds: that it took.
        certified: whether the certificate is of the network as it is now, and not of the removal before.
    """

    calibration: str
    layers: tuple[LayerRecovery, ...]
    refusals: tuple[str, ...]
    seconds: float
    certified: bool = False

    @property
    def summary(self) -> str:
        """What came of it, as a sentence."""
        if not self.layers:
            return f"No layer was solved anew on {self.calibration}."
        before, after = (sorted(getattr(layer, name) for layer in self.layers) for name in ("before", "after"))
        middle = len(self.layers) // 2
        count = f"{len(self.layers)} layers were" if middle else "1 layer was"
        return (
            f"{count} solved anew on {self.calibration}: the error of their outputs fell from"
            f" {before[middle]:.3f} to {after[middle]:.3f} (medians)."
            + ("" if self.certified else " The certificate is of the removal before it.")
        )


def recover(
    dense: fx.GraphModule,
    small: fx.GraphModule,
    plan: Plan,
    calls: Sequence[tuple[Any, ...]],
    options: LeastSquares,
    *,
    calibration: str = "",
    seed: int = 0,
) -> tuple[CapturedModule, Recovery]:
    """A copy of `small` with its layers solved anew, and what was done. Neither module is touched.

    Args:
        dense: captured, as it was before the removal.
        small: what the removal left of it, batch normalisation not folded.
        plan: of the removal.
        calls: calibration inputs: the positional inputs of every call.
        options: how.
        calibration: says for a person what the inputs are.
        seed: of the output positions that are drawn.

    Raises:
        InputError: the network keeps state from call to call.
    """
    began = time.perf_counter()
    dense = canonicalize(dense)
    for place in written_places(dense.graph):
        raise InputError(f"recovery is for networks without state, and this one writes to '{place.target}'")
    small = cloned(small)
    found = list(readers_of(dense, small, plan))
    refusals = [str(entry) for entry in found if isinstance(entry, Refusal)]
    readers = {entry.op.node: entry for entry in found if isinstance(entry, Reader)}
    norms = norms_of(small, dense, plan.kept) if options.statistics == "estimated" else {}
    solving = _Solving(Walk(dense, calls), Walk(small, calls), options, torch.Generator().manual_seed(seed))
    done: list[LayerRecovery] = []
    for node in track([node for node in small.graph.nodes if node in readers or node in norms], "solving layers anew"):
        if node in norms:
            solving.estimate(node, norms[node])
            continue
        outcome = solving.solve(readers[node])
        if isinstance(outcome, LayerRecovery):
            done.append(outcome)
        else:
            refusals.append(str(outcome))
    return small, Recovery(calibration, tuple(done), tuple(dict.fromkeys(refusals)), time.perf_counter() - began)


@dataclass(frozen=True, eq=False)
class _Solving:
    """Both networks, at the same place."""

    dense: Walk
    small: Walk
    options: LeastSquares
    generator: torch.Generator

    def solve(self, reader: Reader) -> LayerRecovery | Refusal:
        """Sets the layer's weights and offset in place; a layer for which that cannot be done is left as it was."""
        halves = self._moments(reader)
        moments = halves[0] + halves[1]
        if not moments.rows or not moments.finite:
            return Refusal(reader.name, "its values on the calibration inputs are not finite, or there are none")
        old = blocks_of(reader.weight.detach(), reader.layer).flatten(2).double()
        bias = (
            reader.offset.value().reshape(old.shape[:2]) if reader.offset is not None else old.new_zeros(old.shape[:2])
        )
        ridge = self.options.ridge
        if ridge is None:
            ridge = best_ridge(halves, old) if halves[0].rows and halves[1].rows else _RIDGE
        found = solve(moments, old, ridge)
        before, after = moments.error(old, bias), moments.error(found.weight, found.bias)
        kernel = found.weight.reshape(*found.weight.shape[:2], -1, max(1, math.prod(reader.layer.taps)))
        with torch.no_grad():
            reader.weight.copy_(stored_form(kernel, reader.layer))
        if reader.offset is not None:
            reader.offset.set(found.bias.reshape(-1))
        return LayerRecovery(reader.name, reader.columns, moments.rows, ridge, before, after)

    def _moments(self, reader: Reader) -> tuple[Moments, Moments]:
        """Of what the layer reads in the smaller network, and gives in the dense one, in two halves of the inputs."""
        self.dense.past(reader.twin)
        self.small.before(reader.op.node)
        axis = reader.layer.axis
        aims = [value.index_select(axis, reader.kept.to(value.device)) for value in self.dense.values(reader.twin)]
        values = self.small.values(reader.layer.source), aims
        centred = reader.offset is not None
        return sampled(reader.op, reader.layer, values, self.options.rows, self.generator, centred=centred)

    def estimate(self, node: fx.Node, norm: Norm) -> None:
        """Sets the statistics of a batch normalisation in place."""
        self.dense.before(norm.twin)
        self.small.before(node)
        norm.estimate(self.small.values(norm.source), self.dense.values(norm.twin_source))
