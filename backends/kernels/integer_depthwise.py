"""Depthwise convolution of codes: sums of products along a row of the window.

Neighbouring pixels of a block are one vector. Transposed, it has the pixels of every channel beside each other, as
instructions sum them. Outputs of a row share it: weights are kept at every place where a window may begin in it, with zeros
around. ARM cores without such instructions multiply two pixels of four channels at a time, and add two taps in 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..graph.nodes import Array, Convolution
from . import loops
from .codes import MOVED
from .depthwise import DepthwiseSpec
from .image import Slots, clear_border
from .integer_products import Products, products_of, weights_of
from .integer_results import store_row
from .tiles import Machine
from .words import DOT

__all__ = ["IntegerDepthwiseSpec", "integer_depthwise"]

_PAIRS = frozenset({"sadalp", "vpadal"})
"""Kinds of products that are of two pixels at a time."""
_TWO = 2
_TILE = 8.0
"""What starting a tile costs, in instructions."""
_FINISH = 6.0
"""Instructions from a sum to a code."""
_UNDER_WAY, _CLAMPED = 5, 10
"""Registers for pixels and the epilogue's literals; where it clamps floats it has more of these."""
_LOAD = 1.0
"""What loading a vector of weights costs, in instructions: other units do it than multiply."""


@dataclass(frozen=True)
class IntegerDepthwiseSpec(DepthwiseSpec):
    """A depthwise convolution of codes.

    Attributes:
        dot: how products are added, as in `Machine.dot`.
        moved: as of `IntegerConvolutionSpec`.
    """

    family: ClassVar[str] = "integer_depthwise"

    dot: str = ""
    moved: bool = False

    @property
    def products(self) -> Products:
        return products_of(self.dot, self.result.lanes)

    @property
    def paired(self) -> bool:
        """Whether two pixels are multiplied at a time."""
        return self.dot in _PAIRS

    @property
    def shifts(self) -> list[tuple[int, int]]:
        """Where in a vector of pixels windows begin, and in which vector from there on their weights are multiplied."""
        taps = self.products.channels
        begins = sorted({x * self.stride[1] % taps for x in range(taps)})
        return [(begin, group) for begin in begins for group in range((begin + self.kernel[1] - 1) // taps + 1)]

    @property
    def row_weights(self) -> int:
        """Weights of a row of the window for a block."""
        lanes = self.result.lanes
        return self.kernel[1] * _TWO * lanes if self.paired else len(self.shifts) * self.products.row

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution as it is defined, unused lanes included."""
        view = self.result
        return view.batch * view.blocks * view.lanes * view.height * view.width * self.kernel[0] * self.kernel[1]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        wide = _TWO if self.products.widened else 1
        return wide * self.result.blocks * self.kernel[0] * self.row_weights

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights ``(blocks, KH, shift, lanes, taps)``, or of pairs ``(blocks, KH, KW, 2, lanes)``, and bias."""
        blocks, lanes, (height, width) = self.source.blocks, self.source.lanes, self.kernel
        kernel = np.zeros((blocks * lanes, height, width), "int16")
        kernel[slots] = convolution.weights.kernel[:, 0]
        bias = np.full(blocks * lanes, MOVED if self.moved else 0, self.accumulator)
        bias[slots] += np.asarray(convolution.weights.bias, self.accumulator)
        blocked = kernel.reshape(blocks, lanes, height, width).transpose(0, 2, 3, 1)
        if self.paired:
            twice = np.repeat(blocked[:, :, :, None], _TWO, axis=3)
            return np.ascontiguousarray(twice).astype(self.factor).reshape(-1), bias
        taps = self.products.channels
        packed = np.zeros((blocks, height, len(self.shifts), lanes, taps), "int16")
        for place, (begin, group) in enumerate(self.shifts):
            for tap in range(width):
                at = begin + tap - group * taps
                if 0 <= at < taps:
                    packed[:, :, place, :, at] = blocked[:, :, tap]
        return weights_of(packed, self.products), bias

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        view = self.result
        return view.batch * view.blocks * view.height * _row_instructions(self, self.columns) / (2.0 * machine.rate)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias, leaves..., result)``."""
        weights = self.result.blocks * self.kernel[0] * self.row_weights
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (weights,), self.products.weights),
            ("bias", (self.result.blocks * self.result.lanes,), self.accumulator),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def integer_depthwise(spec: DepthwiseSpec, machine: Machine) -> IntegerDepthwiseSpec | None:
    """The layer with the machine's sums of products; None where they do not apply: not to pixels apart from each other."""
    source, result = spec.source, spec.result
    lanes = machine.lanes(source.dtype)
    if (
        machine.dot in ("", DOT)
        or source.dtype != machine.codes
        or not source.lanes == source.column == result.lanes == lanes
    ):
        return None
    if spec.dilation[1] != 1 or (machine.dot in _PAIRS and result.width < _TWO):
        return None
    values = {field.name: getattr(spec, field.name) for field in fields(DepthwiseSpec)}
    made = IntegerDepthwiseSpec(**values, dot=machine.dot)
    columns = _columns(made, machine)
    fitted = replace(made, columns=columns, weights_stay=_weights_stay(made, columns, machine))
    return fitted if _end(fitted) <= source.size else None


def _columns(spec: IntegerDepthwiseSpec, machine: Machine) -> int:
    """Outputs of a row in registers: such that a row takes the fewest instructions."""

    def instructions(columns: int) -> float:
        work = _row_instructions(spec, columns)
        if spec.dot != "sdot" or _weights_stay(spec, columns, machine):
            return work
        return work + -(-spec.result.width // columns) * _LOAD * _weights(spec)

    most = min(spec.result.width, max(_TWO, machine.registers // 2))
    return min(range(_TWO if spec.paired else 1, most + 1), key=instructions)


def _weights(spec: IntegerDepthwiseSpec) -> int:
    """Vectors of weights of a block."""
    return spec.kernel[0] * spec.row_weights // (spec.products.row // (_TWO if spec.paired else 1))


def _weights_stay(spec: IntegerDepthwiseSpec, columns: int, machine: Machine) -> bool:
    """Whether there are registers for the weights of a block beside so many outputs of a row."""
    sums = columns + (columns // _TWO if spec.paired else 0)  # With those in 16 bits.
    under_way = _CLAMPED if spec.dot == "sdot" else _UNDER_WAY
    return not machine.in_order and _weights(spec) + sums + under_way <= machine.registers


def _row_instructions(spec: IntegerDepthwiseSpec, columns: int) -> float:
    """Of one row of outputs of a block, in tiles of so many."""
    height, width = spec.kernel
    if spec.paired:
        pairs = -(-columns // _TWO)
        work = pairs * (height * width * (2.0 + spec.stride[1] - 1) + _TWO * -(-height * width // _TWO))
    else:
        groups = [_groups(spec, x) for x in range(columns)]
        work = height * (sum(map(len, groups)) + 2.0 * len({group for some in groups for group in some}))
    stores = 1.0 if spec.result.is_code and columns > 1 else 2.0
    tile = work + columns * (_FINISH + stores / 2) + 2.0 * -(-columns // 4) + _TILE
    return -(-spec.result.width // columns) * tile


def _groups(spec: IntegerDepthwiseSpec, x: int) -> range:
    """The vectors of pixels that output `x` of a tile is made of, counted from the first pixel of the tile."""
    taps, first = spec.products.channels, x * spec.stride[1]
    return range(first // taps, (first + spec.kernel[1] - 1) // taps + 1)


def _end(spec: IntegerDepthwiseSpec) -> int:
    """Where in the source's buffer the last read ends."""
    source, result, (height, width) = spec.source, spec.result, spec.kernel
    if spec.paired:
        last = (result.width - _TWO) * spec.stride[1] + width - 1
        count = _TWO if spec.stride[1] == 1 else 2 * _TWO
    else:
        count = spec.products.channels
        last = (result.width - spec.columns) * spec.stride[1] + count * _groups(spec, spec.columns - 1)[-1]
    row = (result.height - 1) * spec.stride[0] + (height - 1) * spec.dilation[0] - spec.padding[0]
    return int(source.offset(source.batch - 1, source.blocks - 1, row, last - spec.padding[1])) + count * source.lanes


def _body(
    spec: IntegerDepthwiseSpec, source: loops.Buffer, weights: loops.Buffer, bias: loops.Buffer, *rest: loops.Buffer
) -> None:
    leaves, result, view = rest[:-1], rest[-1], spec.result
    clear_border(result, view)
    tiles = -(-view.width // spec.columns)
    # As in the kernel for floating-point numbers: what does not change along a row is loaded before the loop over its tiles.
    inner = tiles if spec.weights_stay else 1
    with view.lines(tiles // inner) as (image, block, row, part), loops.serial(inner) as turn:
        left = loops.tile_start(turn if spec.weights_stay else part, spec.columns, view.width)
        work = _Row(spec, source, weights, (image, block, row, left))
        work.start(bias)
        work.add()
        sums = [work.sum(x) for x in range(spec.columns)]
        store_row(sums, spec.epilogue, leaves, result, view, (image, block, row, left), spec.dot, spec.moved)


class _Row:
    """The sums of neighbouring outputs, and what they are made of: `position` is the image, block, row and first column."""

    def __init__(
        self,
        spec: IntegerDepthwiseSpec,
        source: loops.Buffer,
        weights: loops.Buffer,
        position: tuple[Any, Any, Any, Any],
    ) -> None:
        self._spec, self._source, self._weights, self._position = spec, source, weights, position
        self._lanes = spec.result.lanes
        # The last of several pairs begins further back where there is an odd number of outputs.
        self._pairs = [min(x, spec.columns - _TWO) for x in range(0, spec.columns, _TWO)]
        self._count = _TWO * len(self._pairs) if spec.paired else spec.columns
        self._sums = loops.local(self._count * self._lanes, spec.accumulator)

    def start(self, bias: loops.Buffer) -> None:
        """Every sum begins with the bias of its channel."""
        for place in range(self._count):
            self._put(place, loops.load(bias, self._position[1] * self._lanes, self._lanes))

    def sum(self, x: int) -> Any:
        """Of output `x`."""
        if not self._spec.paired:
            return self._get(x)
        pair = min(x // _TWO, len(self._pairs) - 1)
        return self._get(_TWO * pair + x - self._pairs[pair])

    def add(self) -> None:
        """All products."""
        if self._spec.paired:
            self._add_pairs()
            return
        with loops.serial(self._spec.kernel[0]) as kh:
            self._add_row(kh)

    def _add_row(self, kh: Any) -> None:
        spec = self._spec
        products, taps = spec.products, spec.products.channels
        rows = [_groups(spec, x) for x in range(spec.columns)]
        pixels = {group: self._transposed(kh, group) for group in dict.fromkeys(g for groups in rows for g in groups)}
        places = {shift: place for place, shift in enumerate(spec.shifts)}
        origin = (self._position[1] * spec.kernel[0] + kh) * spec.row_weights
        for x, groups in enumerate(rows):
            for group in groups:
                place = places[x * spec.stride[1] % taps, group - groups[0]]
                weights = products.load(self._weights, origin + place * products.row)
                register = pixels[group]
                pixel = loops.load(register, 0, taps * self._lanes)
                self._put(x, products.add(self._get(x), [pixel], weights))

    def _transposed(self, kh: Any, group: int) -> loops.Buffer:
        """Neighbouring pixels by channel, in a register."""
        products, lanes = self._spec.products, self._lanes
        taps = products.channels
        pixels = loops.load(self._source, self._offset(kh, group * taps), taps * lanes)
        order = [tap * lanes + lane for lane in range(lanes) for tap in range(taps)]
        by_channel = loops.picked([pixels], order)
        dtype = "int16" if products.widened else self._spec.source.dtype
        register = loops.local(taps * lanes, dtype)
        loops.store(register, 0, by_channel, taps * lanes)
        return register

    def _add_pairs(self) -> None:
        """Two taps in 16 bits: at most 2 * 127 * 128."""
        spec = self._spec
        taps = [(kh, kw) for kh in range(spec.kernel[0]) for kw in range(spec.kernel[1])]
        # All taps of a pair of pixels before the next: LLVM keeps what it has multiplied until it adds it to sums.
        for number, x in enumerate(self._pairs):
            for first in range(0, len(taps), _TWO):
                some = taps[first : first + _TWO]
                weights = [self._weight(*tap) for tap in some]
                total: Any = None
                for tap, weight in zip(some, weights, strict=True):
                    product = weight * self._two_pixels(*tap, x)
                    total = product if total is None else total + product
                register = loops.local(_TWO * self._lanes, "int16")
                loops.store(register, 0, total, _TWO * self._lanes)
                for half in (0, 1):
                    more = tirx.Cast(f"int32x{self._lanes}", loops.load(register, half * self._lanes, self._lanes))
                    self._put(_TWO * number + half, self._get(_TWO * number + half) + more)

    def _weight(self, kh: int, kw: int) -> Any:
        count = _TWO * self._lanes
        height, width = self._spec.kernel
        place = ((self._position[1] * height + kh) * width + kw) * count
        return tirx.Cast(f"int16x{count}", loops.load(self._weights, place, count))

    def _two_pixels(self, kh: int, kw: int, x: int) -> Any:
        """Those of outputs `x` and the next."""
        lanes, stride = self._lanes, self._spec.stride[1]
        place = self._offset(kh, x * stride + kw)
        if stride == 1:
            pixels = loops.load(self._source, place, _TWO * lanes)
        elif stride == _TWO:  # One load for two taps.
            wide = loops.load(self._source, place - kw % _TWO * lanes, 2 * _TWO * lanes)
            firsts = (kw % _TWO, kw % _TWO + stride)
            pixels = loops.picked([wide], [first * lanes + lane for first in firsts for lane in range(lanes)])
        else:
            both = [loops.load(self._source, place + pixel * stride * lanes, lanes) for pixel in (0, 1)]
            pixels = loops.picked(both, range(_TWO * lanes))
        return tirx.Cast(f"int16x{_TWO * lanes}", pixels)

    def _offset(self, kh: Any, column: int) -> Any:
        """Of a pixel of the window's row `kh`, so many columns right of where the tile's first window begins."""
        spec = self._spec
        image, block, row, left = self._position
        at_row = row * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
        return spec.source.offset(image, block, at_row, left * spec.stride[1] + column - spec.padding[1])

    def _get(self, place: int) -> Any:
        return loops.load(self._sums, place * self._lanes, self._lanes)

    def _put(self, place: int, value: Any) -> None:
        loops.store(self._sums, place * self._lanes, value, self._lanes)
