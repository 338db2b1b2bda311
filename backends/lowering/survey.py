"""Which kernels a plan calls, for those who look at them one by one."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..graph.nodes import Convolution, Node
from .steps import Choice, KernelPlan

__all__ = ["KernelUse", "kernel_uses"]


@dataclass(frozen=True)
class KernelUse:
    """One of the different kernels of a network.

    Attributes:
        spec: the specification of its family, for layers with alternatives the one chosen.
        macs: multiply-accumulates of one call as the network defines them, without unused lanes; 0 for what is no
            convolution or linear layer.
        calls: how often the network calls it.
        first: whether it is a convolution of a network's input.
    """

    family: str
    spec: Any
    macs: int
    calls: int
    first: bool


def kernel_uses(plan: KernelPlan, choice: Choice | None = None) -> list[KernelUse]:
    """The different kernels that `emit_module` calls, in the order of their first call."""
    placed = [(step.layer.chosen(choice or {}) if step.layer else step.spec, step) for step in plan.kernels]
    calls = Counter(spec for spec, _ in placed)
    last = dict(placed)
    uses = []
    for spec, count in calls.items():
        node = last[spec].node
        macs, first = (_macs(node), node.inputs[0].op == "input") if last[spec].layer else (0, False)
        uses.append(KernelUse(spec.family, spec, macs, count, first))
    return uses


def _macs(node: Node) -> int:
    """Multiply-accumulates of a convolution; of a transposed one, each pixel that is read is multiplied by the kernel."""
    batch, _, height, width = (node.inputs[0] if node.op == "transposed" else node).image_shape
    return batch * height * width * math.prod(node.detail_as(Convolution).weights.kernel.shape)
