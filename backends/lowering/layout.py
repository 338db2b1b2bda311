"""Images in the channel-blocked layout, and weights packed to meet them.

Channel ``c`` of an image lies in slot ``slots[c]``: block ``slot // lanes``, lane ``slot % lanes``. Slots
need not be in order or without gaps. That makes concatenation a copy of whole blocks, and slices, channel
shuffles and flattening no work at all: the weights of whoever reads the image are packed for its slots,
with zeros in the gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph.nodes import Array, Convolution, Weights
from ..kernels.convolution import ConvolutionSpec, panel_rows
from ..kernels.depthwise import DepthwiseSpec
from ..kernels.image import Slots, View
from ..kernels.tiles import Machine
from ..kernels.winograd import WinogradSpec, transformed_weights
from .steps import Value

__all__ = [
    "Image",
    "dense_view",
    "flattened",
    "in_a_row",
    "input_bands",
    "pack_convolution",
    "pack_depthwise",
    "pack_vector",
    "pack_winograd",
    "selected",
    "thin",
]

_LINE = 16
"""Elements in a cache line; a multiple of every target's lanes."""


@dataclass(frozen=True, eq=False)
class Image:
    """A value that was computed: the step that does (its result has one dimension), how it lies there, and its channels'
    slots.
    """

    value: Value
    view: View
    slots: Slots

    @property
    def wasteful(self) -> bool:
        """Whether gaps are more than a reader should carry along."""
        room = self.view.blocks * self.view.lanes
        return room > len(self.slots) * 1.3 + self.view.lanes


def thin(machine: Machine) -> int:
    """Channels up to which an input is not blocked: most lanes of its block would be empty.

    Where multiply-adds take a lane, one load brings all channels of a pixel, and blocks are always worth it.
    """
    return 0 if machine.pixel_registers == 1 else 4


def dense_view(batch: int, blocks: int, height: int, width: int, lanes: int, halo: int) -> View:
    """An image alone in its buffer."""
    row = (width + 2 * halo) * lanes
    block = (height + 2 * halo) * row
    image = blocks * block
    if batch > 1 and height == width == 1:
        # Rows of a matrix are read side by side; a power of two apart they would share a cache set.
        image += _LINE
    start = halo * (row + lanes)
    return View(batch, blocks, height, width, lanes, halo, batch * image, start, image, block, row, lanes)


def selected(image: Image, source: Slots) -> Image:
    """The channels `source` of `image`, without moving anything but the ends of the view."""
    slots = image.slots[source]
    first, last = int(slots.min()) // image.view.lanes, int(slots.max()) // image.view.lanes
    view = replace(image.view, start=image.view.start + first * image.view.block, blocks=last - first + 1)
    return Image(image.value, view, slots - first * image.view.lanes)


def flattened(image: Image) -> Image:
    """``(N, C, H, W)`` read as ``(N, C * H * W)``, one pixel with many channels; a halo becomes gaps."""
    view, lanes = image.view, image.view.lanes
    plane = view.start - view.halo * (view.row + view.column)
    pixels = (np.arange(view.height) + view.halo)[:, None] * (view.row // lanes)
    pixels = (pixels + np.arange(view.width) + view.halo).reshape(-1)
    blocks = view.blocks * (view.block // lanes)
    base = (image.slots // lanes) * (view.block // lanes)
    slots = (base[:, None] + pixels[None, :]) * lanes + (image.slots % lanes)[:, None]
    flat = replace(view, blocks=blocks, height=1, width=1, halo=0, start=plane, block=lanes, row=lanes)
    return Image(image.value, flat, slots.reshape(-1))


def in_a_row(view: View) -> View | None:
    """The pixels of `view` as one row, when they follow each other in memory; a batch of pixels counts as a
    row.
    """
    if view.height == view.width == 1:
        step = view.image if view.batch > 1 else view.column
        return replace(view, batch=1, width=view.batch, image=0, row=0, column=step, halo=0)
    if view.row == view.width * view.column:
        return replace(view, height=1, width=view.height * view.width, row=0)
    return None


def input_bands(spec: ConvolutionSpec, convolution: Convolution, slots: Slots) -> Slots:
    """For every tile of output blocks the first and last input block that its groups read: ``(tiles, 2)``."""
    inputs = convolution.weights.kernel.shape[1]
    bands = []
    for tile in range(spec.tiles):
        groups = _groups(*_outputs(spec, convolution.weights, tile), convolution)
        used = slots[groups.start * inputs : groups.stop * inputs] // spec.source.lanes
        bands.append((int(used.min()), int(used.max())))
    return np.array(bands, dtype="int64")


def pack_convolution(spec: ConvolutionSpec, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
    """Weights as ``(tiles, input block, KH, KW, input channel, tile.blocks * lanes)``, bias by output slot, and for a
    banded kernel each tile's first input block.
    """
    weights = convolution.weights
    lanes, lanes_in = spec.result.lanes, spec.source.lanes
    outputs, inputs, height, width = weights.kernel.shape
    per_group = outputs // convolution.groups
    row = spec.tile.blocks * lanes
    starts = np.zeros(spec.tiles, "int64")
    if spec.banded:
        starts = np.minimum(input_bands(spec, convolution, slots)[:, 0], spec.source.blocks - spec.blocks)
    panels = np.zeros((spec.tiles, panel_rows(spec) * row), "float32")
    for tile in range(spec.tiles):
        first, last = _outputs(spec, weights, tile)
        panel = np.zeros((spec.blocks * lanes_in, height, width, row), "float32")
        for group in _groups(first, last, convolution):
            low, high = max(first, group * per_group), min(last, (group + 1) * per_group)
            rows = slots[group * inputs : (group + 1) * inputs] - int(starts[tile]) * lanes_in
            panel[rows, :, :, low - first : high - first] = weights.kernel[low:high].transpose(1, 2, 3, 0)
        panels[tile] = _by_block(panel.reshape(spec.blocks, lanes_in, height, width, row), spec.rest)
    bias = np.zeros(spec.result.blocks * lanes, "float32")
    bias[:outputs] = weights.bias
    return (panels.reshape(-1), bias, *([starts.astype("int32")] if spec.banded else []))


def pack_winograd(spec: WinogradSpec, weights: Weights, slots: Slots) -> tuple[Array, ...]:
    """Transformed weights as ``(panels, points, channels, tile.blocks * lanes)`` and bias by output slot."""
    lanes, outputs = spec.result.lanes, weights.kernel.shape[0]
    row = spec.tile.blocks * lanes
    moved = transformed_weights(weights.kernel, spec.size).reshape(outputs, -1, spec.points).transpose(2, 1, 0)
    panels = np.zeros((spec.panels, spec.points, spec.channels, row), "float32")
    for panel in range(spec.panels):
        first = min(panel * spec.tile.blocks, spec.result.blocks - spec.tile.blocks) * lanes
        last = min(outputs, first + row)
        panels[panel][:, slots, : last - first] = moved[:, :, first:last]
    bias = np.zeros(spec.result.blocks * lanes, "float32")
    bias[:outputs] = weights.bias
    return panels.reshape(-1), bias


def _outputs(spec: ConvolutionSpec, weights: Weights, tile: int) -> tuple[int, int]:
    """The first output channel of a tile, and the one after its last."""
    blocks, lanes = spec.tile.blocks, spec.result.lanes
    first = min(tile * blocks, max(0, spec.result.blocks - blocks)) * lanes
    return first, min(weights.kernel.shape[0], first + blocks * lanes)


def _groups(first: int, last: int, convolution: Convolution) -> range:
    """The groups that output channels from `first` to before `last` are in."""
    per_group = convolution.weights.kernel.shape[0] // convolution.groups
    return range(first // per_group, (last - 1) // per_group + 1)


def _by_block(panel: npt.NDArray[np.float32], rest: int) -> npt.NDArray[np.float32]:
    """Block, KH, KW, channel, output; of the last block only its `rest` channels."""
    ordered = panel.transpose(0, 2, 3, 1, 4)
    if not rest:
        return ordered.reshape(-1)
    return np.concatenate([ordered[:-1].reshape(-1), ordered[-1, :, :, :rest].reshape(-1)])


def pack_depthwise(spec: DepthwiseSpec, weights: Weights, slots: Slots) -> tuple[Array, ...]:
    """Weights ``(blocks, KH, KW, lanes)`` and bias, both by the slots of the source."""
    height, width = spec.kernel
    blocks, lanes = spec.source.blocks, spec.source.lanes
    kernel = np.zeros((blocks * lanes, height, width), "float32")
    kernel[slots] = weights.kernel[:, 0]
    bias = np.zeros(blocks * lanes, "float32")
    bias[slots] = weights.bias
    blocked = kernel.reshape(blocks, lanes, height, width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(blocked).reshape(-1), bias


def pack_vector(vector: npt.NDArray[Any], slots: Slots, blocks: int, lanes: int) -> npt.NDArray[np.float32]:
    """One number for each channel, by slot."""
    packed = np.zeros(blocks * lanes, "float32")
    packed[slots] = vector
    return packed
