"""Images of nothing in particular that have edges, shading and scales as photographs do: dead leaves.

Discs and rectangles fall on one another, their sizes spread by a power of 3, which makes the image look the same at every
scale (Lee, Mumford and Huang, 2001, doi 10.1023/A:1011109015675). Baradad et al., 2021 ("Learning to see by looking at
noise", arXiv 2106.05963) found that networks trained on such images see better than networks trained on noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["dead_leaves"]

_LEAVES = 400
"""In every image: nearly all of it is covered."""
_SMALLEST = 2.0
"""Radius in pixels."""
_HUE = 0.25
"""Spread of a leaf's colours around its brightness, whose own is `_BRIGHTNESS`."""
_BRIGHTNESS = 0.4
_SHADE = 0.15
"""Spread of the change of brightness from the middle of a leaf to its edge."""

Floats = NDArray[np.float32]


def dead_leaves(shape: tuple[int, int, int, int], seed: int = 0) -> Tensor:
    """Images (count, colours, height, width), float32, of mean 0 and deviation 1 over all of them, in every colour."""
    random = np.random.default_rng(seed)
    images = np.empty(shape, np.float32)
    for image in images:
        image[:] = random.normal(0, _BRIGHTNESS, (shape[1], 1, 1))
        for _ in range(_LEAVES):
            _fall(image, random)
    made = torch.from_numpy(images)
    deviation, mean = torch.std_mean(made, (0, 2, 3), correction=0, keepdim=True)
    return (made - mean) / deviation.clamp_min(1e-6)


def _fall(image: Floats, random: np.random.Generator) -> None:
    """One more leaf on an image, in place."""
    colours, height, width = image.shape
    radius = _radius(random, max(height, width) / 2)
    y, x = random.random() * height, random.random() * width
    round_, turned, slim = random.random() < 0.5, random.random() * math.pi, random.uniform(0.3, 1.0)
    colour = np.asarray(random.normal(0, _HUE, colours) + random.normal(0, _BRIGHTNESS))
    shade = random.normal(0, _SHADE)
    reach = math.ceil(radius * math.sqrt(2))
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    dy, dx = np.mgrid[top : min(height, int(y) + reach + 1), left : min(width, int(x) + reach + 1)].astype(np.float32)
    dy, dx = dy - y, dx - x
    along = dx * math.cos(turned) + dy * math.sin(turned)
    across = (dy * math.cos(turned) - dx * math.sin(turned)) / slim
    reach_of = np.hypot(along, across) if round_ else np.maximum(np.abs(along), np.abs(across))
    inside: NDArray[np.bool_] = reach_of < radius
    part = image[:, top : top + inside.shape[0], left : left + inside.shape[1]]
    shaded = along[inside] * (shade / radius)
    part[:, inside] = colour[:, None] + shaded[None]


def _radius(random: np.random.Generator, largest: float) -> float:
    """Drawn with a density that falls with the third power, between the smallest and `largest`."""
    low, high = _SMALLEST**-2, max(largest, _SMALLEST) ** -2
    return float((low + (high - low) * random.random()) ** -0.5)
