"""Random changes to training images, a whole batch at once. All randomness comes from the generator that is given."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ...frontend.base.errors import InputError

__all__ = ["AUGMENTATIONS", "crop_flip", "resized_crop_flip"]

_PADDING = 4
_SCALE = (0.1, 1.0)
_RATIO = (0.8, 1.25)


def nothing(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images as they are."""
    return images


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pads by 4 black pixels, crops to the old size at random, flips every second one: as for CIFAR in open_lth.

    Args:
        images: (N, C, H, W), of any type.
        generator: on the CPU.
    """
    count, channels, height, width = images.shape
    top, left = torch.randint(2 * _PADDING + 1, (2, count), generator=generator)
    columns = torch.arange(width).expand(count, width)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height) + top[:, None]
    padded = F.pad(images, (_PADDING,) * 4)
    where = (
        torch.arange(count)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    )
    return padded[tuple(index.to(images.device) for index in where)]


def resized_crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Scales a random part, of 10 to 100 % of the area and 4:5 to 5:4, to the old size; flips every second one.

    As for Tiny ImageNet in open_lth. Bilinear; floating-point images come out.
    """
    count = len(images)
    draws = torch.rand(5, count, generator=generator)
    area = _SCALE[0] + draws[0] * (_SCALE[1] - _SCALE[0])
    ratio = torch.exp(math.log(_RATIO[0]) + draws[1] * math.log(_RATIO[1] / _RATIO[0]))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0] = torch.where(draws[4] < 0.5, -width, width)
    place[:, 1, 1] = height
    place[:, 0, 2] = (2 * draws[2] - 1) * (1 - width)
    place[:, 1, 2] = (2 * draws[3] - 1) * (1 - height)
    grid = F.affine_grid(place, list(images.shape), align_corners=False).to(images.device)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def trivial_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """`crop_flip`, then one change of each image, drawn with its strength (Müller and Hutter, 2021, arXiv:2103.10158)."""
    return _by_torchvision("TrivialAugmentWide", images, generator)


def rand_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """`crop_flip`, then two changes of each image, drawn, of strength 9 of 31 (Cubuk et al., 2020, arXiv:1909.13719)."""
    return _by_torchvision("RandAugment", images, generator)


def _by_torchvision(name: str, images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image changed by a transform of torchvision's, which draws from PyTorch's own generator."""
    change = getattr(_transforms(), name)()
    cropped = crop_flip(images, generator)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
        return torch.stack([change(image) for image in cropped])


def _transforms() -> ModuleType:
    """Raises InputError where torchvision is not there, or does not fit this torch."""
    try:
        return importlib.import_module("torchvision.transforms.v2")
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"this augmentation is torchvision's, which cannot be imported ({str(error).splitlines()[0]}); install the one of"
            " this torch, or choose another augment"
        ) from None


AUGMENTATIONS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {
        "none": nothing,
        "crop-flip": crop_flip,
        "resized-crop-flip": resized_crop_flip,
        "trivial-augment": trivial_augment,
        "rand-augment": rand_augment,
    }
)
"""By name: uint8 images (N, 3, H, W) and a generator on the CPU to changed images of that size."""
