"""The images of a training, batch by batch. What a batch holds depends on seed, epoch and step only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.data.datasets import Images
from .augmentation import AUGMENTATIONS

__all__ = ["Batches", "generator_for"]


def generator_for(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all of `numbers`."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


@dataclass(frozen=True, eq=False)
class Batches:
    """Images and labels on the device that trains."""

    pixels: Tensor
    """(N, 3, H, W), uint8."""
    labels: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, images: Images, count: int, device: torch.device) -> Batches:
        """`count` of the images (0: all), the same ones every time.

        Raises:
            InputError: there are fewer.
        """
        if count > len(images):
            raise InputError(f"{images.name} has {len(images)} images, fewer than {count}")
        order = np.random.default_rng(0).permutation(len(images))[: count or len(images)]
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1).to(device) for values in (images.mean, images.std))
        pixels, labels = torch.from_numpy(images.pixels[order]), torch.from_numpy(images.labels[order])
        return cls(pixels.to(device), labels.to(device), mean, std)

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, seed: int, epoch: int) -> Tensor:
        """The images' order in an epoch."""
        return torch.randperm(len(self), generator=generator_for(seed, 0, epoch))

    def training(
        self, order: Tensor, step: int, size: int, augment: str, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Batch number `step` of an epoch, changed at random and normalized: float32 images and labels."""
        chosen = order[step * size : (step + 1) * size].to(self.labels.device)
        return self._normalized(AUGMENTATIONS[augment](self.pixels[chosen], generator)), self.labels[chosen]

    def plain(self, start: int, size: int) -> tuple[Tensor, Tensor]:
        """Images `start` to `start + size` as they are, normalized, and their labels."""
        return self._normalized(self.pixels[start : start + size]), self.labels[start : start + size]

    def _normalized(self, pixels: Tensor) -> Tensor:
        return (pixels.float() / 255 - self.mean) / self.std
