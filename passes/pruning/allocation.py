"""How a sparsity is shared between layers: densities by layer that keep the same number of weights in all.

Every allocation takes the weights in the order of the network and the share p of all of them that goes, and gives each
layer's share. Those that need a scale solve it so that (1 - p) of the weights stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from scipy.optimize import brentq

from .scores import Weight

__all__ = [
    "ALLOCATIONS",
    "erk",
    "ideal_gas_quota",
    "smart_ratio",
    "smart_ratio_vgg",
    "uniform",
    "water_filling",
    "water_filling_macs",
]

_LINEAR_DENSITY = 0.3
"""Of linear layers under the smart ratio, as its authors have it."""


def uniform(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """The same sparsity in every layer."""
    return {weight.name: sparsity for weight in weights}


def erk(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """Densities in proportion to (sum of the shape) / (product of the shape), at most 1 (Evci et al., 2020, arXiv 1911.11134).

    For a convolution the sum is that of output channels, input channels and kernel sizes. Layers that would be denser than
    1 are dense, and the others share what is left, until it fits.
    """
    return _in_proportion(weights, sparsity, [sum(weight.shape) / weight.size for weight in weights])


def water_filling(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """Equally many weights stay in every layer, all of them where a layer has fewer.

    That maximises the sum of the logarithms of the densities d under a budget of weights: the derivative of log d_l by the
    weights kept, N_l d_l, is 1 / (N_l d_l), which is the same in every layer that is not dense. It is how we read the
    expectation-based proxy of PreCrop (Cai et al., 2022, arXiv 2203.02549).
    """
    return _in_proportion(weights, sparsity, [1 / weight.size for weight in weights])


def water_filling_macs(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """Equally many multiply-accumulates stay in every layer, all of them where a layer has fewer.

    `water_filling` with the price of a layer in multiply-accumulates instead of weights; the level is still the one at which
    (1 - p) of the weights stay, so that p means what it does for the others.
    """
    return _in_proportion(weights, sparsity, [1 / max(weight.macs, 1) for weight in weights])


def ideal_gas_quota(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """Densities 1 / (1 + F N) of layers with N weights, F such that the budget is met: ideal gas quotas (Vysogorets and
    Kempe, 2021, arXiv 2107.02306)."""
    budget = _budget(weights, sparsity)

    def surplus(factor: float) -> float:
        return sum(weight.size / (1 + factor * weight.size) for weight in weights) - budget

    # At F = layers / budget every layer keeps fewer than budget / layers.
    factor = brentq(surplus, 0.0, len(weights) / budget, xtol=1e-300, rtol=1e-14) if sparsity else 0.0
    return {weight.name: 1 - 1 / (1 + factor * weight.size) for weight in weights}


def smart_ratio(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """Densities in proportion to k^2 + k, convolutions counted from the last one, k = 1, to the first (Su et al., 2020,
    arXiv 2009.11094).

    Linear layers keep 0.3 of their weights, if that leaves some for the convolutions. What would make a convolution denser
    than 1 goes to the next.
    """
    return _smart(weights, sparsity, lambda k, place: k * k + k)


def smart_ratio_vgg(weights: Sequence[Weight], sparsity: float) -> dict[str, float]:
    """`smart_ratio` as its authors have it for VGG: divided by the square of the place, 1 for the first convolution."""
    return _smart(weights, sparsity, lambda k, place: (k * k + k) / place**2)


ALLOCATIONS: Mapping[str, Callable[[Sequence[Weight], float], dict[str, float]]] = MappingProxyType(
    {
        "uniform": uniform,
        "erk": erk,
        "smart-ratio": smart_ratio,
        "smart-ratio-vgg": smart_ratio_vgg,
        "water-filling": water_filling,
        "water-filling-macs": water_filling_macs,
        "igq": ideal_gas_quota,
    }
)
"""Layer-wise allocations by name; ``global``, one ranking over all layers, is none of them."""


def _budget(weights: Sequence[Weight], sparsity: float) -> float:
    return (1 - sparsity) * sum(weight.size for weight in weights)


def _in_proportion(weights: Sequence[Weight], sparsity: float, ratios: Sequence[float]) -> dict[str, float]:
    """Sparsities whose densities are in proportion to `ratios` and at most 1, and meet the budget."""
    budget, dense = _budget(weights, sparsity), set[int]()
    while True:
        rest = [place for place in range(len(weights)) if place not in dense]
        left = budget - sum(weights[place].size for place in dense)
        scale = left / sum(weights[place].size * ratios[place] for place in rest) if rest else 0.0
        full = {place for place in rest if scale * ratios[place] > 1}
        if not full:
            break
        dense |= full
    return {weight.name: 0.0 if place in dense else 1 - scale * ratios[place] for place, weight in enumerate(weights)}


def _smart(weights: Sequence[Weight], sparsity: float, ratio: Callable[[int, int], float]) -> dict[str, float]:
    """The smart ratio: `ratio` takes the place of a convolution from the last and from the first, both from 1."""
    convolutions = [weight for weight in weights if weight.convolution]
    linear = [weight for weight in weights if not weight.convolution]
    budget = _budget(weights, sparsity)
    rest = budget - _LINEAR_DENSITY * sum(weight.size for weight in linear)
    if not convolutions or rest <= 0:
        return uniform(weights, sparsity)
    ratios = [ratio(len(convolutions) - place, place + 1) for place in range(len(convolutions))]
    scale = rest / sum(weight.size * share for weight, share in zip(convolutions, ratios, strict=True))
    kept = [weight.size * share * scale for weight, share in zip(convolutions, ratios, strict=True)]
    kept, surplus = _handed_on(convolutions, kept, 0.0)
    kept, surplus = _handed_on(convolutions, kept, surplus)  # What the last had too much of, from the first on.
    density = _LINEAR_DENSITY
    if linear and surplus > 0:
        density += surplus / sum(weight.size for weight in linear)
    return {
        **{weight.name: 1 - count / weight.size for weight, count in zip(convolutions, kept, strict=True)},
        **{weight.name: 1 - density for weight in linear},
    }


def _handed_on(weights: Sequence[Weight], kept: Sequence[float], surplus: float) -> tuple[list[float], float]:
    """Weights that every layer keeps, none more than it has, and what is left over after the last."""
    found = []
    for weight, count in zip(weights, kept, strict=True):
        found.append(min(count + surplus, float(weight.size)))
        surplus += count - found[-1]
    return found, surplus
