"""Small photographs in folders by class, made by drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["draw", "write_pictures"]

COLOURS = {"ripe": (210, 40, 30), "unripe": (60, 190, 50), "rotten": (90, 60, 30)}


def draw(name: str, seed: int) -> Image.Image:
    """A spot in the colour of its class on a ground of noise, 50 to 70 pixels wide and high."""
    random = np.random.default_rng((seed, len(name)))
    width, height = (int(extent) for extent in random.integers(50, 70, 2))
    image = Image.fromarray(random.integers(60, 160, (height, width, 3), dtype=np.uint8))
    left, top, size = (int(value) for value in random.integers((5, 5, 25), (15, 15, 35)))
    ImageDraw.Draw(image).ellipse((left, top, left + size, top + size), fill=COLOURS[name])
    return image


def write_pictures(folder: Path, count: int, classes: tuple[str, ...] = ("ripe", "unripe"), first: int = 0) -> None:
    """`count` JPEG files for each class in ``folder/CLASS``."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(first, first + count):
            draw(name, index).save(folder / name / f"{index:04d}.jpg", quality=85)
