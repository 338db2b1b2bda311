"""Which part of a network's time is general code: operators without a kernel of ours, by a model of what they take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph.nodes import Node
from ..importing.origins import Origin
from ..lowering.steps import Choice, KernelPlan

__all__ = ["GeneralCode", "GeneralCodeWarning", "general_code", "told"]

_PRODUCT = 1.5
"""Cycles of a multiply-accumulate of general code, whose sums do not stay in registers."""
_STATISTIC, _FUNCTION, _MOVE = 3.0, 8.0, 0.5
"""Cycles for each element of what is summed in float64 and read again, of a function of the C library, and of all else."""
_STATISTICS = ("norm", "mean", "sum", "variance", "std", "softmax", "max", "min", "extreme", "sort", "topk", "cumsum")
_FUNCTIONS = ("tanh", "sigmoid", "gelu", "silu", "exp", "log", "erf", "sin", "cos", "pow", "sqrt", "softplus")
_WORTH_TELLING, _TOLD = 0.1, 4
"""The share of the time from which on general code is told of, and operators that are named."""
_NOTHING = 20_000.0
"""Cycles that are not worth a word, whatever their share: about what a call takes besides."""
_FREE = frozenset({"reshape", "squeeze", "expand_dims", "flatten"})
"""Other shapes of the same elements."""


@dataclass(frozen=True)
class GeneralCode:
    """An operator that no kernel of ours computes.

    Attributes:
        operator: TVM's name, such as ``nn.conv3d``.
        layer: the module of the model that calls it; empty for the model itself.
        line: of the model's code, ``file.py:12``; empty where that is not known.
        calls: how often one pass calls it there.
        share: of the modelled time of one pass, 0 to 1.
        cycles: that these calls are modelled to take.
    """

    operator: str
    layer: str
    line: str
    calls: int
    share: float
    cycles: float


class GeneralCodeWarning(UserWarning):
    """A good part of a compiled model's time is general code."""


def told(found: Sequence[GeneralCode], share: float | None = None) -> str | None:
    """One line for a person, where more than a tenth of the time is general code, and that is more than nothing: how much, and
    whose. `share`: what was measured of it; else it is modelled.
    """
    modelled = sum(code.share for code in found)
    whole = modelled if share is None else share
    if whole <= _WORTH_TELLING or sum(code.cycles for code in found) < _NOTHING:
        return None
    told = [code for code in found if code.share > _WORTH_TELLING * modelled][:_TOLD] or found[:_TOLD]
    named = "; ".join(f"{_place(code)} {whole * code.share / modelled:.0%}" for code in told)
    others = f"; and {len(found) - len(told)} more" if len(found) > len(told) else ""
    kind = "modelled to be general code" if share is None else "general code"
    return f"{whole:.0%} of the time is {kind}, which is slower than kernels of ours: {named}{others}"


def _place(code: GeneralCode) -> str:
    layer = f" of '{code.layer}'" if code.layer else ""
    return f"{code.operator}{layer}{f' ({code.line})' if code.line else ''}"


def general_code(plan: KernelPlan, choice: Choice, origins: Mapping[str, Origin]) -> tuple[GeneralCode, ...]:
    """The dearest first. `origins` by the names of Relax' variables."""
    machine = plan.machine
    ours = sum((step.layer.chosen(choice) if step.layer else step.spec).cycles(machine) for step in plan.kernels)
    cycles: dict[tuple[str, str, str], list[float]] = {}
    for node in plan.graph.nodes:
        if node.op == "foreign":
            origin = origins.get(node.origin, Origin())
            key = node.name.removeprefix("relax."), origin.layer, origin.line
            cycles.setdefault(key, []).append(foreign_cycles(node))
    whole = ours + sum(map(sum, cycles.values()))
    found = [
        GeneralCode(*key, len(each), sum(each) / whole, sum(each))
        for key, each in cycles.items()
        if whole and sum(each)
    ]
    return tuple(sorted(found, key=lambda code: -code.share))


def foreign_cycles(node: Node) -> float:
    """Estimated cycles of one call of a foreign operator on one core."""
    name = node.name.rpartition(".")[2]
    if name in _FREE:
        return 0.0
    elements = float(max(math.prod(shape) for shape in (node.shape, *(source.shape for source in node.inputs))))
    products = _products(node, name)
    if products:
        return products * _PRODUCT
    if any(word in name for word in _STATISTICS):
        return elements * _STATISTIC
    return elements * (_FUNCTION if any(word in name for word in _FUNCTIONS) else _MOVE)


def _products(node: Node, name: str) -> float:
    """Multiply-accumulates of a convolution or product of matrices; 0 for what is none."""
    if name.startswith("conv") and len(node.inputs) > 1:
        data, kernel = node.inputs[0].shape, node.inputs[1].shape
        outputs = data if "transpose" in name else node.shape
        return math.prod(outputs) / outputs[1] * math.prod(kernel)
    if name == "matmul" and node.inputs[0].shape:
        return float(math.prod(node.shape) * node.inputs[0].shape[-1])
    return 0.0
