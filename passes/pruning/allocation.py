"""How a sparsity is shared between layers: uniformly, or by the Erdős-Rényi kernel rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from .scores import Weight

__all__ = ["ALLOCATIONS", "erk", "uniform"]


def uniform(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """The same sparsity in every layer."""
    return {weight.name: sparsity for weight in weights}


def erk(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """Densities in proportion to (sum of the shape) / (product of the shape), at most 1 (Evci et al., 2020, arXiv 1911.11134).

    For a convolution the sum is that of output channels, input channels and kernel sizes. Layers that would be denser than
    1 are dense, and the others share what is left, until it fits.
    """
    budget = (1 - sparsity) * sum(weight.size for weight in weights)
    dense: set[str] = set()
    while True:
        rest = [weight for weight in weights if weight.name not in dense]
        left = budget - sum(weight.size for weight in weights if weight.name in dense)
        scale = left / sum(sum(weight.shape) for weight in rest) if rest else 0.0
        full = {weight.name for weight in rest if scale * sum(weight.shape) > weight.size}
        if not full:
            break
        dense |= full
    return {
        weight.name: 0.0 if weight.name in dense else 1 - scale * sum(weight.shape) / weight.size for weight in weights
    }


ALLOCATIONS: Mapping[str, Callable[[Sequence[Weight], float], dict[str, float]]] = MappingProxyType(
    {"uniform": uniform, "erk": erk}
)
"""Layer-wise allocations by name; ``global``, one ranking over all layers, is none of them."""
