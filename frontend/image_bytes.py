"""Models that take images as cameras and decoders give them: bytes, normalised by the model itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import Inputs
from .base.errors import InputError
from .capture import FIXED, Model, capture, example_inputs_of
from .data.facts import facts_of, keep_facts
from .graph_module import CapturedModule, as_changed
from .stored_compute import compute_of, keep_compute

__all__ = ["ORDERS", "check_order", "on_image_bytes"]

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
        A graph that takes uint8, 0..255; ``meta["example_inputs"]`` are the example's images as bytes. Of what the model says
        of its images, the classes stay, and the normalisation is its own.

    Raises:
        InputError: the model takes something else, the colours are not as many, a mean is no share, a deviation not finite or
            not above 0, or there is no such order.
        CaptureError: the model cannot be captured.
    """
    check_order(order)
    module = capture(model, example_inputs)
    given = example_inputs_of(module) if example_inputs is None else example_inputs
    image = _image(given)
    subtracted, divisor = (_numbers(name, given, image.shape[1]) for name, given in (("mean", mean), ("std", std)))
    if not 0 <= subtracted.min() <= subtracted.max() <= 1:
        raise InputError("mean has a number that is not from 0 to 1; give shares of 255, such as 0.485 for 123.7")
    if min(divisor.flatten()) <= 0:
        raise InputError("std has a number that is not above 0; give the deviation of each colour")
    made = _OnBytes.around(module, subtracted, divisor, order)
    sizes = module.meta.get("input_sizes")
    shapes = None if sizes is not None and sizes.free() else FIXED
    found = capture(made, (made.bytes_of(image),), shapes)
    if (facts := facts_of(module)) is not None:
        keep_facts(found, replace(facts, colours=None))
    keep_compute(found, compute_of(module))
    return found


def check_order(order: str) -> None:
    """Raises InputError unless it is one of `ORDERS`."""
    if order not in ORDERS:
        raise InputError(f"there is no order '{order}' of an image's axes; choose {' or '.join(ORDERS)}")


def _image(inputs: Any) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(inputs)
    image = leaves[0] if len(leaves) == 1 else None
    if not isinstance(image, Tensor) or image.dim() != 4 or image.dtype != torch.float32:
        told = ", ".join(_told(leaf) for leaf in leaves) or "nothing"
        raise InputError(
            "only a model with one input, images of float32 (N, C, H, W), can take these as bytes, and this one takes"
            f" {told}; give the model as it was before that, or one of images alone"
        )
    return image


def _told(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return f"a {type(leaf).__name__}"
    return f"{str(leaf.dtype).removeprefix('torch.')} {'x'.join(map(str, leaf.shape))}"


def _numbers(what: str, values: Sequence[float], channels: int) -> Tensor:
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError):
        raise InputError(f"{what} is {values!r}; give a list of numbers, one for each colour") from None
    if len(found) != channels or not all(map(math.isfinite, found)):
        raise InputError(
            f"{what} has {len(found)} numbers, and the images' colours are {channels}; give a finite one for each"
        )
    return torch.tensor(found).view(1, -1, 1, 1)


class _OnBytes(nn.Module):
    """A captured module's code on its own parts, whose names stay, behind a normalisation."""

    _code: Callable[..., Any]
    _names: tuple[str, ...]
    """Of what is subtracted, and what is divided by."""
    _order: str

    @classmethod
    def around(cls, module: CapturedModule, mean: Tensor, std: Tensor, order: str) -> _OnBytes:
        made = cls()
        inside = as_changed(module).__dict__
        for kind in ("_parameters", "_modules", "_buffers"):
            made.__dict__[kind] |= inside[kind]
        made.__dict__ |= {kind: inside[kind] for kind in ("_in_spec", "_out_spec") if kind in inside}
        made.__dict__ |= {"_captured": module, "_code": type(module).forward, "_order": order}
        made._names = tuple(made._stored(name, values) for name, values in (("image_mean", mean), ("image_std", std)))
        return made.eval()

    def _stored(self, name: str, values: Tensor) -> str:
        """Keeps `values` under that name, or one like it where a part of the model has it; gives the name."""
        while hasattr(self, name):
            name += "_"
        self.register_buffer(name, values)
        return name

    def forward(self, image: Tensor) -> Any:
        channels_first = image.permute(0, 3, 1, 2) if self._order == "NHWC" else image
        mean, std = map(self.get_buffer, self._names)
        normalised = (channels_first.to(torch.float32) / 255 - mean) / std
        return self._code(self, normalised)

    def train(self, mode: bool = True) -> _OnBytes:
        self.__dict__["_captured"].train(mode)
        self.training = mode
        return self

    def bytes_of(self, image: Tensor) -> Tensor:
        """Those of an image that was normalised."""
        mean, std = map(self.get_buffer, self._names)
        numbers = ((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return numbers.permute(0, 2, 3, 1).contiguous() if self._order == "NHWC" else numbers
