"""Image files as the input of a model, prepared as its file says, and its answer in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backends.tensor_spec import CodeScale, TensorSpec
from ..frontend.base.errors import InputError
from ..frontend.data.facts import Colours, DataFacts
from ..frontend.data.image_files import read_fitted

__all__ = ["Pictures", "labels_of"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_UNREAD = (".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2", ".ico", ".tga", ".svg", ".psd", ".dng")
"""Of images, too."""
_LIKELIEST = 5


@dataclass(frozen=True)
class Pictures:
    """Image files that are the one input of a call.

    Attributes:
        files: one for each item of the batch.
        colours: what they are normalised with; None: as the model says.
        name: of the input that they are for, if it was given.
    """

    files: tuple[Path, ...]
    colours: Colours | None = None
    name: str | None = None

    @classmethod
    def among(cls, words: Sequence[str], colours: Colours | None = None) -> Pictures | None:
        """Image files that were named, also as ``NAME=FILE``, None if none was.

        Raises:
            InputError: arrays, images of other formats or other inputs' names are among them.
        """
        parted = [_parted(word) for word in words]
        for _, file in parted:
            if file.lower().endswith(_UNREAD):
                raise InputError(f"'{file}' is of a format that is not read; make it one of {', '.join(SUFFIXES)}")
        named = [(name, file) for name, file in parted if file.lower().endswith(SUFFIXES)]
        if not named:
            if colours is not None:
                raise InputError("--mean and --std are what image files are normalised with, and none was given")
            return None
        if len(named) < len(words):
            other = next(file for name, file in parted if (name, file) not in named)
            raise InputError(f"'{named[0][1]}' is an image and '{other}' is none; give images alone, or arrays alone")
        names = dict.fromkeys(name for name, _ in named)
        if len(names) > 1:
            told = " and ".join("one without a name" if name is None else f"one for '{name}'" for name in names)
            raise InputError(f"images are for the one input of a model, and there is {told}; give them alike")
        return cls(tuple(Path(file) for _, file in named), colours, next(iter(names)))

    def inputs(self, specs: Sequence[TensorSpec], facts: DataFacts | None) -> tuple[torch.Tensor, ...]:
        """The input of the call: scaled, cropped to the middle, and normalised; then as codes where the code takes codes. Where
        the model takes bytes it is the pixels.

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
        if self.name not in (None, spec.name):
            raise InputError(f"the model has no input '{self.name}'; it takes {spec.name}")
        batch, height, width = spec.shape[0], *(spec.shape[axis] for axis in order)
        if len(self.files) != batch:
            raise InputError(
                f"the model takes {batch} images a call, and {len(self.files)} were given; give as many, or compile it with"
                f" --input {'x'.join(map(str, (len(self.files), *spec.shape[1:])))}"
            )
        if _on_bytes(spec) and self.colours is not None:
            raise InputError("the model takes bytes and normalises them itself; leave out --mean and --std")
        pixels = torch.from_numpy(np.stack([read_fitted(path, height, width) for path in self.files]))
        if _on_bytes(spec):
            return (pixels.permute(0, 2, 3, 1).contiguous() if order == _LAST else pixels,)
        colours = self.colours or (None if facts is None else facts.colours)
        if colours is None:
            raise InputError(
                "the model does not say what images are normalised with; give --mean and --std, as it was trained with, or"
                " record them in it with 'reconvene capture --classes FILE --mean R,G,B --std R,G,B'"
            )
        mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (colours.mean, colours.std))
        normalised = (pixels.to(torch.float32) / 255 - mean) / std
        return (normalised if spec.codes is None else _coded(normalised, spec.codes, spec.dtype),)


def _parted(word: str) -> tuple[str | None, str]:
    """Name and file of ``NAME=FILE``; no name where there is none, or where that is a file."""
    name, equals, file = word.partition("=")
    return (name, file) if equals and not Path(word).exists() else (None, word)


def _coded(values: torch.Tensor, codes: CodeScale, dtype: str) -> torch.Tensor:
    """The 8-bit codes that are nearest to numbers, half to even, as a quantised model rounds them itself."""
    kind = getattr(torch, dtype)
    limits = torch.iinfo(kind)
    return (torch.round(values * (1.0 / codes.scale)) + codes.zero_point).clamp(limits.min, limits.max).to(kind)


def _on_bytes(spec: TensorSpec) -> bool:
    """Whether it is images as they are, and no codes of numbers."""
    return spec.dtype == "uint8" and spec.codes is None


_FIRST, _LAST = (2, 3), (1, 2)
"""Axes of height and width where colours come before them, or behind."""


def _order(spec: TensorSpec) -> tuple[int, int] | None:
    """Where height and width are in images of three colours; None for anything else."""
    if len(spec.shape) != 4 or not (spec.dtype == "float32" or _on_bytes(spec) or spec.codes is not None):
        return None
    return _FIRST if spec.shape[1] == 3 else _LAST if spec.shape[3] == 3 and _on_bytes(spec) else None


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
