"""Which kernels a graph needs: found out without building any, or with each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax

from ..graph.nodes import Convolution, Graph, Node
from ..kernels.alternatives import Candidate
from ..kernels.convolution import ConvolutionSpec
from ..kernels.tiles import Machine
from ..kernels.winograd import WinogradSpec
from .emit import Choose, Emitter
from .layout import Slots

__all__ = ["KernelUse", "kernel_uses", "survey"]


@dataclass(frozen=True)
class KernelUse:
    """One of the different kernels of a network.

    Attributes:
        spec: the specification of its family, or for convolutions the candidate chosen.
        function: the TIR function.
        macs: multiply-accumulates of one call as the network defines them, without unused lanes; 0 for what is no
            convolution or linear layer.
        calls: how often the network calls it.
        first: whether it is a convolution of a network's input.
    """

    family: str
    spec: Any
    function: Any
    macs: int
    calls: int
    first: bool


def kernel_uses(graph: Graph, machine: Machine, choose: Choose = Candidate) -> list[KernelUse]:
    """The different kernels that `emit_module` calls, in the order of their first call."""
    emitter = Emitter(graph, machine, choose)
    module = emitter.module()
    uses = []
    for (family, spec), variable in emitter.kernels.items():
        node, calls = emitter.anchors.get((family, spec)), emitter.calls[family, spec]
        macs, first = (_macs(node), node.inputs[0].op == "input") if node is not None else (0, False)
        uses.append(KernelUse(family, spec, module[variable.name_hint], macs, calls, first))
    return uses


def survey(graph: Graph, machine: Machine) -> list[ConvolutionSpec]:
    """The default specification of every convolution that has alternatives, as `emit_module` will ask for it."""
    return _Survey(graph, machine).specifications()


class _Survey(Emitter):
    """Goes through the graph as the emitter does, without packing a weight or building a kernel."""

    def __init__(self, graph: Graph, machine: Machine) -> None:
        self.found: list[ConvolutionSpec] = []
        super().__init__(graph, machine, self._noted)

    def specifications(self) -> list[ConvolutionSpec]:
        self.module()
        return self.found

    def _noted(self, spec: ConvolutionSpec) -> Candidate:
        self.found.append(spec)
        return Candidate(spec)

    def _weights(
        self, spec: ConvolutionSpec | WinogradSpec, convolution: Convolution, slots: Slots, starts: Slots | None
    ) -> list[Any]:
        return []

    def _call(
        self,
        family: str,
        build: Callable[[Any, str], Any],
        spec: Any,
        arguments: list[Any],
        shape: Sequence[int],
        workspace: Sequence[int] = (),
    ) -> Any:
        return self.builder.emit(relax.op.zeros(relax.ShapeExpr(list(shape)), "float32"))


def _macs(node: Node) -> int:
    """Multiply-accumulates of a convolution."""
    batch, _, height, width = node.image_shape
    return batch * height * width * math.prod(node.detail.weights.kernel.shape)
