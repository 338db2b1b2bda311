"""Models that take images as cameras and decoders give them: bytes, normalised by the model itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import Inputs
from .base.errors import InputError
from .capture import FIXED, Model, capture, example_inputs_of
from .graph_module import CapturedModule, as_changed

__all__ = ["ORDERS", "on_image_bytes"]

ORDERS = ("NHWC", "NCHW")
"""Of the axes of images: pixel by pixel, or colour by colour."""


def on_image_bytes(
    model: Model,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    order: str = "NHWC",
    example_inputs: Inputs | None = None,
) -> CapturedModule:
    """The same model on bytes: what it took is ``(image / 255 - mean) / std``, in float32, which its graph now begins with.

    Compiled, a quantised model reads its first codes out of a table with 256 entries for each colour, and no number is a float.

    Args:
        model: as for `capture`, with one input: images ``(N, C, H, W)``, float32.
        mean, std: of each of the C colours, as shares of 255: what images were normalised with for its training.
        order: of the axes of the bytes: ``NHWC``, as cameras and decoders have them, or ``NCHW``.
        example_inputs: of the model as it is. Not needed for one that is captured, and for files.

    Returns:
        A graph that takes uint8, 0..255; ``meta["example_inputs"]`` are the example's images as bytes.

    Raises:
        InputError: the model takes something else, the colours are not as many, a number is not finite or a deviation not above
            0, or there is no such order.
        CaptureError: the model cannot be captured.
    """
    if order not in ORDERS:
        raise InputError(f"there is no order '{order}' of an image's axes; choose {' or '.join(ORDERS)}")
    module = capture(model, example_inputs)
    given = example_inputs_of(module) if example_inputs is None else example_inputs
    image = _image(given)
    subtracted, divisor = (_numbers(name, given, image.shape[1]) for name, given in (("mean", mean), ("std", std)))
    if min(divisor.flatten()) <= 0:
        raise InputError("std has a number that is not above 0; give the deviation of each colour")
    made = _OnBytes.around(module, subtracted, divisor, order)
    sizes = module.meta.get("input_sizes")
    shapes = None if sizes is not None and sizes.free() else FIXED
    return capture(made, (made.bytes_of(image),), shapes)


def _image(inputs: Any) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(inputs)
    image = leaves[0] if len(leaves) == 1 else None
    if not isinstance(image, Tensor) or image.dim() != 4 or image.dtype != torch.float32:
        raise InputError("only a model with one input, images of float32 (N, C, H, W), can take these as bytes")
    return image


def _numbers(what: str, values: Sequence[float], channels: int) -> Tensor:
    found = [float(value) for value in values]
    if len(found) != channels or not all(map(math.isfinite, found)):
        raise InputError(f"{what} has {len(found)} numbers, the images {channels} colours; give a finite one for each")
    return torch.tensor(found).view(1, -1, 1, 1)


class _OnBytes(nn.Module):
    """A captured module's code on its own parts, whose names stay, behind a normalisation."""

    image_mean: Tensor
    image_std: Tensor
    _code: Callable[..., Any]
    _order: str

    @classmethod
    def around(cls, module: CapturedModule, mean: Tensor, std: Tensor, order: str) -> _OnBytes:
        made = cls()
        inside = as_changed(module).__dict__
        for kind in ("_parameters", "_modules", "_buffers"):
            made.__dict__[kind] |= inside[kind]
        made.__dict__ |= {kind: inside[kind] for kind in ("_in_spec", "_out_spec") if kind in inside}
        made.__dict__ |= {"_captured": module, "_code": type(module).forward, "_order": order}
        made.register_buffer("image_mean", mean)
        made.register_buffer("image_std", std)
        return made.eval()

    def forward(self, image: Tensor) -> Any:
        channels_first = image.permute(0, 3, 1, 2) if self._order == "NHWC" else image
        normalised = (channels_first.to(torch.float32) / 255 - self.image_mean) / self.image_std
        return self._code(self, normalised)

    def train(self, mode: bool = True) -> _OnBytes:
        self.__dict__["_captured"].train(mode)
        self.training = mode
        return self

    def bytes_of(self, image: Tensor) -> Tensor:
        """Those of an image that was normalised."""
        numbers = ((image * self.image_std + self.image_mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return numbers.permute(0, 2, 3, 1).contiguous() if self._order == "NHWC" else numbers
