"""What a network's code does, step after step: calls of our kernels, and operators that are TVM's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..graph.nodes import Array, Convolution, Graph, Node
from ..kernels.convolution import ConvolutionSpec
from ..kernels.image import Slots
from ..kernels.tiles import Machine

__all__ = ["Kept", "Placed", "Plan", "Value"]


@dataclass(frozen=True, eq=False)
class Placed:
    """A call of one of our kernels.

    Attributes:
        node: whose value it computes, or lays out anew.
        spec: of the kernel; of a layer with alternatives the one it is computed by if no other is chosen.
        sources: what it reads first.
        shape: of the result.
        tables: what it reads then; of a layer it is packed from `layer` for the specification chosen.
        leaves: what its epilogue reads, last.
        layer: the convolution or linear layer that it computes, with the slots of the channels of its source.
        has_alternatives: whether the layer may be computed by another specification.
    """

    node: Node
    spec: Any
    sources: tuple[Value, ...]
    shape: tuple[int, ...]
    tables: tuple[Array, ...] = ()
    leaves: tuple[Value, ...] = ()
    layer: tuple[Convolution, Slots] | None = None
    has_alternatives: bool = False


@dataclass(frozen=True, eq=False)
class Kept:
    """A node that stays one operator of TVM's: foreign, an item of a tuple, or another shape of the same elements."""

    node: Node
    inputs: tuple[Value, ...]


Value = Placed | Kept | Node | Array
"""What a step computes, an input or a constant of the graph, or a constant of the layout."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a network's code does, step after step, laid out for `machine`.

    Attributes:
        results: the graph's outputs.
    """

    graph: Graph
    machine: Machine
    steps: tuple[Placed | Kept, ...]
    results: tuple[Value, ...]

    @property
    def kernels(self) -> list[Placed]:
        """The steps that call kernels of ours."""
        return [step for step in self.steps if isinstance(step, Placed)]

    @property
    def layers(self) -> list[ConvolutionSpec]:
        """The default specification of every layer that has alternatives, in the order of their steps."""
        return [step.spec for step in self.kernels if step.has_alternatives]
