"""More images from few: parts of each, scaled to the old size, every second one mirrored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["crops"]


def crops(images: Tensor, count: int, seed: int = 0) -> Tensor:
    """Squares, or parts of the image's own form, of half of the side to the whole, at random places, of the images by turns.

    Args:
        images: N x colours x height x width, float.
        count: how many; from all images as many, to one.
        seed: of places and sizes.

    Returns:
        count x colours x height x width; every second is mirrored, and of one image every second, too.
    """
    generator, (height, width) = torch.Generator().manual_seed(seed), images.shape[-2:]
    found = []
    for number in range(count):
        share = 0.5 + 0.5 * float(torch.rand(1, generator=generator))
        high, wide = max(1, round(share * height)), max(1, round(share * width))
        top, left = (
            int(torch.randint(0, whole - part + 1, (1,), generator=generator))
            for whole, part in ((height, high), (width, wide))
        )
        image = images[number % len(images), :, top : top + high, left : left + wide]
        image = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]
        found.append(image.flip(-1) if (number % len(images) + number // len(images)) % 2 else image)
    return torch.stack(found)
