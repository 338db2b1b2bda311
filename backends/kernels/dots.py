"""Layers of few weights anywhere, over images in blocks: one output channel after the other, vectors running along its weights.

The elements of the input that a vector of weights is for lie anywhere, and are loaded one by one. That is slow work, but none
is for nothing, while channels that are computed together (`rows`) have to share columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Convolution
from . import loops
from .image import Slots, clear_border
from .packed_rows import shared_size
from .rows import places_in_blocks
from .skipping import SkippingSpec
from .tiles import Machine, streamed_cycles
from .zeros import entries_of

__all__ = ["DotsSpec", "dot_steps"]

_ELEMENT = 2.1
"""Cycles of finding an element of the input and putting it in its place of a vector."""
_ROW = 12.0
"""What an output costs beside, in cycles."""


@dataclass(frozen=True, kw_only=True)
class DotsSpec(SkippingSpec):
    """One convolution or linear layer, with everything its code depends on.

    Attributes:
        source: the input in blocks; its halo covers the padding.
        result: the output in blocks of `lanes` channels.
        steps: vectors of weights of all outputs.
        parts: of about equally many weights, that cores share.
    """

    family: ClassVar[str] = "dots"

    steps: int
    parts: int = 1

    @property
    def workspace(self) -> tuple[int, ...]:
        """It needs none."""
        return ()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights and of the places they are for."""
        return self.steps * self.result.lanes * (self.source.element_bytes + 4)

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights ``(steps, lanes)``, bias by output, the first step of each output, the first block of each part, and places
        in the input by weight. An output's last vector is filled with zeros, for the first place of all.
        """
        entries, lanes, view = entries_of(convolution), self.result.lanes, self.result
        counts = np.bincount(entries.row, minlength=view.blocks * lanes)
        starts = np.concatenate([[0], np.cumsum(-(-counts // lanes))])
        first = np.cumsum(counts) - counts
        at = starts[entries.row] * lanes + np.arange(len(entries.row)) - first[entries.row]
        weights, columns = np.zeros(self.steps * lanes, self.source.dtype), np.zeros(self.steps * lanes, "int64")
        weights[at], columns[at] = entries.weight, entries.column
        bias = np.zeros(view.blocks * lanes, self.source.dtype)
        bias[: self.outputs] = convolution.weights.bias
        wanted = np.arange(1, self.parts) * (int(starts[-1]) / self.parts)
        spans = np.concatenate([[0], np.searchsorted(starts[::lanes], wanted), [view.blocks]])
        places = places_in_blocks(self, slots)[columns]
        return (weights, bias, starts.astype("int32"), spans.astype("int32"), places.astype("int32"))

    def typical(self) -> dict[int, Array]:
        """Tables of outputs that have equally many weights, of places all over the window and the channels."""
        every = places_in_blocks(self, np.arange(self.source.blocks * self.source.lanes))
        rows = self.result.blocks * self.result.lanes
        starts = np.arange(rows + 1) * self.steps // rows
        spans = np.arange(self.parts + 1) * self.result.blocks // self.parts
        places = np.random.default_rng(0).integers(0, len(every), self.steps * self.result.lanes)
        tables = (starts, spans, every[places])
        return {place: table.astype("int32") for place, table in enumerate(tables, start=3)}

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: elements that are loaded one by one, and weights from memory."""
        element = _ELEMENT * (2.0 if machine.in_order else 1.0)
        pixels = self.result.batch * self.result.height * self.result.width
        rows = self.result.blocks * self.result.lanes
        compute = pixels * (self.steps * self.result.lanes * element + rows * _ROW)
        return streamed_cycles(machine, compute, self.weight_bytes)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, packed arrays..., leaves..., result)``."""
        dtype, view = self.source.dtype, self.result
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (self.steps * view.lanes,), dtype),
            ("bias", (view.blocks * view.lanes,), dtype),
            ("starts", (view.blocks * view.lanes + 1,), "int32"),
            ("spans", (self.parts + 1,), "int32"),
            ("places", (self.steps * view.lanes,), "int32"),
            *self.epilogue.arguments(),
            ("result", *view.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def dot_steps(counts: Array, lanes: int) -> int:
    """Vectors of the weights of outputs that have so many each, rounded up to a size that layers share."""
    return shared_size(int((-(-counts // lanes)).sum()))


def _body(
    spec: DotsSpec,
    source: loops.Buffer,
    weights: loops.Buffer,
    bias: loops.Buffer,
    starts: loops.Buffer,
    spans: loops.Buffer,
    places: loops.Buffer,
    *rest: loops.Buffer,
) -> None:
    view, lanes = spec.result, spec.result.lanes
    result = rest[-1]
    clear_border(result, view)
    with loops.parallel(spec.parts) as part:
        blocks = loops.span(spans[part], spans[part + 1]) if spec.parts > 1 else loops.serial(view.blocks)
        with blocks as block, loops.serial(view.batch * view.height) as line, loops.serial(view.width) as column:
            image, row = (line // view.height, line % view.height) if view.batch > 1 else (0, line)
            at = image * spec.source.image + row * spec.stride[0] * spec.source.row
            at = at + column * spec.stride[1] * spec.source.column
            totals = loops.local(lanes, DTYPES[spec.source.dtype].accumulator)
            for lane in range(lanes):
                output = block * lanes + lane
                steps = loops.span(loops.table(starts, output), loops.table(starts, output + 1))
                loops.store(totals, lane, _dot(spec, source, weights, places, steps, at))
            value = loops.load(bias, block * lanes, lanes) + loops.load(totals, 0, lanes)
            position = (image, block, row, column)
            loops.store(result, view.offset(*position), spec.epilogue.value(value, rest[:-1], position, lanes), lanes)


def _dot(spec: DotsSpec, source: loops.Buffer, weights: loops.Buffer, places: loops.Buffer, steps: Any, at: Any) -> Any:
    """The sum of an output's products."""
    lanes, accumulator = spec.result.lanes, DTYPES[spec.source.dtype].accumulator
    sums = loops.local(lanes, accumulator)
    loops.store(sums, 0, loops.number(0.0, lanes, accumulator), lanes)
    with steps as step:
        elements = loops.local(lanes, spec.source.dtype)
        for lane in range(lanes):
            loops.store(elements, lane, loops.load(source, loops.table(places, step * lanes + lane) + at))
        product = loops.load(elements, 0, lanes) * loops.load(weights, step * lanes, lanes)
        loops.store(sums, 0, loops.load(sums, 0, lanes) + product, lanes)
    parts = [loops.load(sums, lane) for lane in range(lanes)]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [low + high for low, high in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]
