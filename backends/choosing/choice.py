"""Chooses how every convolution of a network is computed: by rule, by a cost, or by what was found before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from ..kernels.alternatives import Candidate, alternatives, winograd_alternatives
from ..kernels.convolution import ConvolutionSpec
from ..kernels.tiles import Machine
from .cost import Cost

__all__ = ["WINOGRAD", "Choice", "Memory", "Winograd", "choose", "takes_default"]

Winograd = Literal["auto", "off", "2x2", "4x4"]

WINOGRAD: dict[str, tuple[int, ...]] = {"auto": (2, 4), "off": (), "2x2": (2,), "4x4": (4,)}
"""Sizes of Winograd tiles that each setting allows."""

_CLEARLY = 0.95
"""What share of the default's cost another candidate may have at most: measurements are noisy."""

Choice = Mapping[ConvolutionSpec, Candidate]
"""By the default specification of a layer, how it is computed."""


class Memory(Protocol):
    """Remembers choices: the index of a candidate among those of a layer."""

    def get(self, layer: Sequence[Candidate]) -> int | None:
        """What was chosen before among these candidates, if anything."""
        ...

    def put(self, found: Mapping[int, tuple[Sequence[Candidate], int]]) -> None:
        """Keeps new choices."""
        ...


def takes_default(spec: ConvolutionSpec) -> Candidate:
    """The direct kernel with the tile it came with."""
    return Candidate(spec)


def choose(
    layers: Sequence[ConvolutionSpec],
    machine: Machine,
    winograd: Winograd,
    cost: Cost | None,
    memory: Memory | None = None,
) -> dict[ConvolutionSpec, Candidate]:
    """A candidate for each distinct layer.

    Without a `cost` it is the direct kernel, or with ``winograd`` given as a size the Winograd kernel wherever it
    applies. With one it is the cheapest, if it is clearly cheaper than the first. `memory` saves asking again.
    """
    chosen: dict[ConvolutionSpec, Candidate] = {}
    asked: list[tuple[ConvolutionSpec, tuple[Candidate, ...]]] = []
    for spec in dict.fromkeys(layers):
        options = _options(spec, machine, winograd, cost)
        known = memory.get(options) if memory is not None and len(options) > 1 else None
        if known is not None or len(options) == 1:
            chosen[spec] = options[known or 0]
        else:
            asked.append((spec, options))
    if cost is not None and asked:
        figures = cost([options for _, options in asked])
        found: dict[int, tuple[Sequence[Candidate], int]] = {}
        for number, ((spec, options), costs) in enumerate(zip(asked, figures, strict=True)):
            best = min(range(len(costs)), key=costs.__getitem__)
            index = best if costs[best] < _CLEARLY * costs[0] else 0
            chosen[spec] = options[index]
            found[number] = (options, index)
        if memory is not None:
            memory.put(found)
    return chosen


def _options(spec: ConvolutionSpec, machine: Machine, winograd: Winograd, cost: Cost | None) -> tuple[Candidate, ...]:
    forced = winograd in ("2x2", "4x4")
    if forced:
        found = winograd_alternatives(spec, machine, WINOGRAD[winograd][0])
        if found:
            return found if cost is not None else found[:1]
    if cost is None:
        return (Candidate(spec),)
    return alternatives(spec, machine, () if forced else WINOGRAD[winograd])
