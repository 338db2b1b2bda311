"""What a network's code does, step after step: calls of our kernels, and operators that are TVM's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..graph.nodes import Array, Convolution, Graph, Node
from ..kernels.base import LayerSpec, Spec, Task
from ..kernels.image import Slots
from ..kernels.tiles import Machine

__all__ = ["Choice", "Kept", "KernelPlan", "Placed", "PlacedLayer", "Value"]

Choice = Mapping[Task, LayerSpec]
"""How tasks are computed; what is not in it, by the default."""


@dataclass(frozen=True, eq=False)
class PlacedLayer:
    """A convolution or linear layer that a kernel computes.

    Attributes:
        slots: of the channels of its source.
        spec: how it is computed where nothing else is chosen.
        task: by which a choice names it; None if there are no alternatives.
    """

    convolution: Convolution
    slots: Slots
    spec: LayerSpec
    task: Task | None = None

    def chosen(self, choice: Choice) -> LayerSpec:
        """How it is computed."""
        return choice.get(self.task, self.spec) if self.task is not None else self.spec


@dataclass(frozen=True, eq=False)
class Placed:
    """A call of one of our kernels.

    Attributes:
        node: whose value it computes, or lays out anew.
        spec: of the kernel; of a layer the one it is computed by where no other is chosen.
        sources: what it reads first.
        shape: of the result.
        tables: what it reads then; for a layer it is packed when the specification is chosen.
        leaves: what its epilogue reads, last.
        dtype: of the result, where it is not that of `node`.
    """

    node: Node
    spec: Spec
    sources: tuple[Value, ...]
    shape: tuple[int, ...]
    tables: tuple[Array, ...] = ()
    leaves: tuple[Value, ...] = ()
    layer: PlacedLayer | None = None
    dtype: str = ""

    @property
    def result_dtype(self) -> str:
        """Of what the kernel writes: that of the last operation it computes."""
        return self.dtype or self.node.dtype


@dataclass(frozen=True, eq=False)
class Kept:
    """A node that stays one operator of TVM's: foreign, an item of a tuple, or another shape of the same elements."""

    node: Node
    inputs: tuple[Value, ...]


Value = Placed | Kept | Node | Array
"""What a step computes, an input or a constant of the graph, or a constant of the layout."""


@dataclass(frozen=True, eq=False)
class KernelPlan:
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
    def tasks(self) -> list[Task]:
        """Of every layer that has alternatives, in the order of their steps."""
        return [step.layer.task for step in self.kernels if step.layer is not None and step.layer.task is not None]
