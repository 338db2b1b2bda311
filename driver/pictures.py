"""Image files as the input of a model, prepared as its file says, and its answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backends.tensor_spec import TensorSpec
from ..frontend.base.errors import InputError
from ..frontend.data.facts import Colours, DataFacts
from ..frontend.data.image_files import read_fitted

__all__ = ["Pictures", "labels_of"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_LIKELIEST = 5


@dataclass(frozen=True)
class Pictures:
    """Image files that are the one input of a call.

    Attributes:
        files: one for each item of the batch.
        colours: what they are normalised with; None: as the model says.
    """

    files: tuple[Path, ...]
    colours: Colours | None = None

    @classmethod
    def among(cls, words: Sequence[str], colours: Colours | None = None) -> Pictures | None:
        """The image files that were named, None if none was. Raises InputError where arrays are among them."""
        named = [word for word in words if word.lower().endswith(SUFFIXES)]
        if not named:
            if colours is not None:
                raise InputError("--mean and --std are what image files are normalised with, and none was given")
            return None
        if len(named) < len(words):
            other = next(word for word in words if word not in named)
            raise InputError(f"'{named[0]}' is an image and '{other}' is none; give images alone, or arrays alone")
        return cls(tuple(map(Path, named)), colours)

    def inputs(self, specs: Sequence[TensorSpec], facts: DataFacts | None) -> tuple[torch.Tensor, ...]:
        """The input of the call: scaled, cropped to the middle, and normalised, or as bytes where the model takes bytes.

        Args:
            specs: of the model's inputs.
            facts: what it says of the images that it was trained on.

        Raises:
            InputError: a file is no image, the model takes something else or other numbers of images, or nothing says what
                images are normalised with.
        """
        spec = specs[0] if len(specs) == 1 else None
        order = None if spec is None else _order(spec)
        if spec is None or order is None:
            told = ", ".join(f"{each.dtype} {'x'.join(map(str, each.shape))}" for each in specs)
            raise InputError(f"the model takes {told}, no images of three colours; give arrays, .npy or .npz")
        batch, height, width = spec.shape[0], *(spec.shape[axis] for axis in order)
        if len(self.files) != batch:
            raise InputError(
                f"the model takes {batch} images a call, and {len(self.files)} were given; give as many, or compile it with"
                f" --input {'x'.join(map(str, (len(self.files), *spec.shape[1:])))}"
            )
        pixels = torch.from_numpy(np.stack([read_fitted(path, height, width) for path in self.files]))
        if spec.dtype == "uint8":
            return (pixels.permute(0, 2, 3, 1).contiguous() if order == _LAST else pixels,)
        colours = self.colours or (None if facts is None else facts.colours)
        if colours is None:
            raise InputError(
                "the model does not say what images are normalised with; give --mean and --std, as it was trained with, or"
                " record them in it with 'reconvene capture --classes FILE --mean R,G,B --std R,G,B'"
            )
        mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (colours.mean, colours.std))
        normalised = (pixels.to(torch.float32) / 255 - mean) / std
        return (normalised.permute(0, 2, 3, 1).contiguous() if order == _LAST else normalised,)


_FIRST, _LAST = (2, 3), (1, 2)
"""Axes of height and width where colours come before them, or behind."""


def _order(spec: TensorSpec) -> tuple[int, int] | None:
    """Where height and width are in images of three colours; None for anything else."""
    if len(spec.shape) != 4 or spec.dtype not in ("float32", "uint8"):
        return None
    return _FIRST if spec.shape[1] == 3 else _LAST if spec.shape[3] == 3 and spec.dtype == "uint8" else None


def labels_of(files: Sequence[Path], outputs: Sequence[torch.Tensor], facts: DataFacts | None) -> list[dict[str, Any]]:
    """For each image its likeliest classes by name, with their softmax; nothing where the model's output is no such scores."""
    if facts is None or len(outputs) != 1 or not outputs[0].is_floating_point():
        return []
    scores = outputs[0].to(torch.float64)
    if scores.dim() != 2 or scores.shape != (len(files), len(facts.classes)):
        return []
    sums = scores.sum(1)
    # Some models end in a softmax of their own.
    shares = scores if bool((scores >= 0).all() and ((sums - 1).abs() < 1e-3).all()) else scores.softmax(1)
    found = []
    for file, row in zip(files, shares, strict=True):
        best = row.argsort(descending=True, stable=True)[:_LIKELIEST].tolist()
        found.append({"file": str(file), "classes": [{"name": facts.classes[n], "share": float(row[n])} for n in best]})
    return found
