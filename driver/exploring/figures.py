"""What is counted of a network: multiply-accumulates, parameters, zeros."""

from __future__ import annotations

from dataclasses import dataclass

from ...frontend.graph_module import CapturedModule
from ...passes.canonicalize import canonicalize
from ...passes.dependency import dependency_view
from ...passes.sizes import examples_counted, layer_macs, total_size
from ...passes.values import attribute
from ...passes.weight_views import weight_views

__all__ = ["Figures", "figures_of"]


@dataclass(frozen=True)
class Figures:
    """Of one network.

    Attributes:
        all_macs: multiply-accumulates of the examples that it was captured with.
        macs: of one example.
        needed_macs: those of them whose weight is not zero.
        parameters: of it, zeros among them.
        zeros: share of zeros in the weights of layers.
    """

    all_macs: int
    macs: int
    needed_macs: int
    parameters: int
    zeros: float


def figures_of(module: CapturedModule) -> Figures:
    """Counts a captured network."""
    view, examples = dependency_view(canonicalize(module)), examples_counted(module)
    size, by_layer = total_size(view, module), layer_macs(view.module, view.operations)
    weights = zeros = idle = 0
    for name in {one.name for one in weight_views(view.module)}:
        weight = attribute(view.module, name)
        missing = weight.numel() - int(weight.count_nonzero())
        weights, zeros = weights + weight.numel(), zeros + missing
        idle += by_layer.get(name, 0) * missing // weight.numel()
    macs = size.macs
    return Figures(
        macs, macs // examples, (macs - idle) // examples, size.parameters, zeros / weights if weights else 0.0
    )
