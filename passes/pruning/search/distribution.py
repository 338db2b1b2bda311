"""The distribution over parts: how likely a unit that goes is one of each. Parts that can lose nothing have 0.

Or one for every layer over what it may become, as the rows of a matrix; rows of layers with fewer choices end in zeros. What
samples and steps do is the same: each row adds up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .parts import Part

__all__ = ["Floats", "initial", "perturbed", "restricted", "updated"]

Floats = NDArray[np.float64]


def initial(parts: Sequence[Part]) -> Floats:
    """In proportion to the price of all units of a part, so that all that can lose the same share; all 0 if none can."""
    return _normal(np.array([part.size * part.price if part.most else 0 for part in parts], np.float64))


def restricted(distribution: Floats, parts: Sequence[Part]) -> Floats:
    """The same without parts that can lose nothing any more; `initial` where that leaves none."""
    left = np.where([part.most > 0 for part in parts], distribution, 0.0)
    return _normal(left) if left.any() else initial(parts)


def perturbed(distribution: Floats, noise: float, least: float, generator: np.random.Generator) -> Floats:
    """A sample around a distribution.

    Args:
        distribution: around which.
        noise: standard deviation of what is added to every probability. It is multiplied by a number from 0 to 1 that is
            drawn for the sample, so that some samples lie near and some far.
        least: of what has a probability, before all are made to add up to 1 again.
        generator: of the noise.
    """
    drawn = generator.standard_normal(distribution.shape) * noise * generator.random()
    return _normal(np.where(distribution > 0, np.maximum(distribution + drawn, least), 0.0))


def updated(distribution: Floats, target: Floats, rate: float, clip: float) -> Floats:
    """A step of length `rate` towards `target`; no probability changes by more than the factor 1 - `clip` or 1 + `clip`.

    That is PPO's clip by name. Afterwards all are made to add up to 1, which multiplies all of them by one number.
    """
    moved = distribution + rate * (target - distribution)
    return _normal(np.clip(moved, (1 - clip) * distribution, (1 + clip) * distribution))


def _normal(values: Floats) -> Floats:
    summed = values.sum(-1, keepdims=True)
    return values / np.where(summed > 0, summed, 1.0)
