"""Layers of codes with their arrays, and what they give by exact integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reconvene.backends.graph.nodes import Convolution, Weights
from reconvene.backends.kernels.epilogue import Epilogue, Operand, Step
from reconvene.backends.kernels.image import Slots, View
from reconvene.backends.kernels.integer_sparse import sparse_spec
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.layers import convolution_spec, depthwise_spec
from reconvene.backends.lowering.layout import Image, channels_last_view, dense_view
from tests.support.kernel_programs import Arrays

__all__ = ["Case", "Layer"]

_SUM = (900, -700, 2048, 11)
"""Factors, offset and shift of a residual sum."""


@dataclass(frozen=True)
class Layer:
    """A convolution of codes; `height` and `width` are the input's.

    Attributes:
        low, high: of the codes of its result.
        result: codes by way of a float32 scale, the same with another image added, float32, or the sums.
        numbers: any; the least and the largest that there are; or such that products with scales are next to a half.
        largest_scale: whether products with scales are far beyond 32 bits.
        tight: whether there is nothing behind the last pixel of the input.
        zeros: the share of blocks of four outputs and four inputs at a place of the window that are zero; where there are
            some, the kernel is the one that reads what is not.
    """

    inputs: int
    outputs: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    batch: int = 1
    groups: int = 1
    zero: int = -11
    low: int = -128
    high: int = 127
    result: Literal["codes", "residual", "float32", "sums"] = "codes"
    halo: int = 0
    numbers: Literal["any", "extreme", "ties"] = "any"
    largest_scale: bool = False
    tight: bool = False
    zeros: float = 0.0

    def case(self, machine: Machine, seed: int = 0, spec: Any = None) -> Case:
        """The layer as `machine` computes it by default, or by `spec`, on codes of its type."""
        return Case.made(self, machine, np.random.default_rng(seed), spec)


@dataclass(frozen=True, eq=False)
class Case:
    """A kernel, its arguments, and the bits that it gives.

    Attributes:
        view: where the result lies.
        expected: the result, ``(N, C, H, W)`` in the type of the result.
        place: of the result among the arguments.
    """

    layer: Layer
    spec: Any
    arguments: Arrays
    view: View
    expected: npt.NDArray[Any]
    place: int

    @classmethod
    def made(cls, layer: Layer, machine: Machine, random: np.random.Generator, spec: Any = None) -> Case:
        moved = 128 if machine.codes == "uint8" else 0
        x, weights, bias = _numbers(layer, random)
        sums = _sums(layer, x, weights, bias)
        scales = _scales(layer, sums, random)
        other = random.integers(-128, 128, sums.shape)
        source = _view(layer.batch, layer.inputs, x.shape[2:], layer.padding, machine, machine.codes)
        if machine.dot == "smlad" and layer.groups == 1:
            source = channels_last_view(
                layer.batch, layer.inputs, layer.height, layer.width, layer.padding, machine.codes
            )
        room = (source.size - layer.batch * source.image) if layer.tight else 0
        source = replace(source, border=layer.zero + moved, size=source.size - room)
        kind = {"float32": "float32", "sums": "int32"}.get(layer.result, machine.codes)
        view = _view(layer.batch, layer.outputs, sums.shape[2:], layer.halo, machine, kind)
        view = replace(view, border=3 if layer.halo else 0)
        convolution = Convolution(
            Weights(
                weights.astype("float64"), (bias - (layer.zero + moved) * weights.sum((1, 2, 3))).astype("float64")
            ),
            stride=(layer.stride,) * 2,
            dilation=(layer.dilation,) * 2,
            padding=(layer.padding,) * 4,
            groups=layer.groups,
        )
        epilogue = replace(_epilogue(layer, view, moved), dot=machine.dot)
        leaves = [_vector(scales, view), _placed(other + moved, view, random)]
        slots = np.arange(layer.inputs, dtype="int64")
        if spec is None and layer.groups == layer.inputs == layer.outputs and layer.groups > 1:
            spec = depthwise_spec(convolution, source, view, epilogue, machine)
        elif spec is None:
            spec = convolution_spec(convolution, Image(np.zeros(1), source, slots), view, epilogue, machine)
            spec = sparse_spec(spec, machine) if layer.zeros else spec
        given = _placed(
            np.pad(x, _pads(layer.padding), constant_values=layer.zero) + moved, source, random, layer.padding
        )
        arguments = [given, *spec.pack(convolution, slots), *leaves[: len(epilogue.leaves)]]
        place = len(arguments)
        junk = random.integers(0, 255, view.size).astype(view.dtype)
        arguments += [junk, *(np.zeros(size, "int32") for size in spec.workspace)]
        return cls(layer, spec, arguments, view, _expected(layer, sums, scales, other, moved, kind), place)

    def wrong(self, arrays: Arrays) -> int:
        """How many elements of the result are not what they should be; those of its border too."""
        found = arrays[self.place][_places(self.expected.shape, self.view)]
        same = np.array_equal(found, self.expected)
        if self.view.halo:
            halo = self.view.halo
            batch, channels, height, width = self.expected.shape
            framed = (batch, channels, height + 2 * halo, width + 2 * halo)
            corner = replace(self.view, start=self.view.start - halo * (self.view.row + self.view.column))
            whole = arrays[self.place][_places(framed, corner)].copy()
            whole[:, :, halo:-halo, halo:-halo] = self.view.border
            same = same and bool((whole == self.view.border).all())
        return 0 if same else max(1, int((found != self.expected).sum()))


def _numbers(layer: Layer, random: np.random.Generator) -> tuple[Any, Any, Any]:
    shape = (layer.batch, layer.inputs, layer.height, layer.width)
    kernel = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
    if layer.numbers == "ties":  # The sums are then the biases.
        return np.full(shape, layer.zero), np.ones(kernel, "int64"), random.integers(1000, 2**20, layer.outputs)
    if layer.numbers == "extreme":
        weights = np.broadcast_to(127 * random.choice([-1, 1], (layer.outputs, 1, 1, 1)), kernel).copy()
        weights[:, 0, 0, 0] = -128  # As at most one of an output is.
        codes = random.choice([-128, 127], shape, p=[0.9, 0.1])
        return codes, weights, random.integers(-(2**20), 2**20, layer.outputs)
    x, weights = random.integers(-128, 128, shape), random.integers(-127, 128, kernel)
    if layer.zeros:
        blocks = random.random((-(-kernel[0] // 4), -(-kernel[1] // 4), *kernel[2:])) >= layer.zeros
        weights *= np.repeat(np.repeat(blocks, 4, 0), 4, 1)[: kernel[0], : kernel[1]]
    return x, weights, random.integers(-5000, 5000, layer.outputs)


def _scales(layer: Layer, sums: Any, random: np.random.Generator) -> npt.NDArray[np.float32]:
    if layer.numbers == "ties":
        return ((random.integers(-100, 100, layer.outputs) + 0.5) / sums[0, :, 0, 0]).astype("float32")
    largest = max(1.0, float(np.abs(sums).max()))
    return (random.uniform(0.5, 1.5, layer.outputs) * (3e9 if layer.largest_scale else 200.0) / largest).astype(
        "float32"
    )


def _pads(padding: int) -> list[tuple[int, int]]:
    return [(0, 0), (0, 0), (padding, padding), (padding, padding)]


def _sums(layer: Layer, x: Any, weights: Any, bias: Any) -> npt.NDArray[np.int64]:
    """By definition, in int64."""
    padded = np.pad(x - layer.zero, _pads(layer.padding))
    reach = (layer.kernel - 1) * layer.dilation
    height, width = ((size + 2 * layer.padding - reach - 1) // layer.stride + 1 for size in x.shape[2:])
    total = np.zeros((layer.batch, layer.outputs, height, width), "int64") + bias[:, None, None]
    outputs, inputs = layer.outputs // layer.groups, layer.inputs // layer.groups
    for group in range(layer.groups):
        of, into = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, (group + 1) * inputs)
        for kh in range(layer.kernel):
            for kw in range(layer.kernel):
                top, left = kh * layer.dilation, kw * layer.dilation
                part = padded[
                    :,
                    into,
                    top : top + (height - 1) * layer.stride + 1 : layer.stride,
                    left : left + (width - 1) * layer.stride + 1 : layer.stride,
                ]
                total[:, of] += np.einsum("oc,nchw->nohw", weights[of, :, kh, kw], part)
    return total


def _expected(layer: Layer, sums: Any, scales: Any, other: Any, moved: int, kind: str) -> npt.NDArray[Any]:
    if layer.result == "sums":
        return sums.astype("int32")
    scaled = sums.astype("int32").astype("float32") * scales[:, None, None]
    if layer.result == "float32":
        return scaled
    clamped = np.clip(scaled, np.float32(layer.low - layer.zero), np.float32(layer.high - layer.zero))
    codes = np.rint(clamped).astype("int64") + layer.zero
    if layer.result == "residual":
        first, second, offset, shift = _SUM
        codes = np.clip(
            ((codes + moved) * first + (other + moved) * second + offset) >> shift, moved - 128, moved + 127
        )
        return codes.astype(kind)
    return (codes + moved).astype(kind)


def _epilogue(layer: Layer, view: View, moved: int) -> Epilogue:
    scales = dense_view(1, view.blocks, 1, 1, view.lanes, 0)
    leaf = replace(scales, image=0, row=0, column=0)
    operands = (Operand("anchor"), Operand("leaf"))
    if layer.result == "sums":
        return Epilogue()
    if layer.result == "float32":
        return Epilogue((Step("rescale", (0,), operands),), (leaf,))
    limits = (0, layer.zero + moved, layer.low + moved, layer.high + moved)
    steps: tuple[Step, ...] = (Step("requantize", limits, operands),)
    if layer.result == "residual":
        first, second, offset, shift = _SUM
        parameters = (first, second, offset, shift, moved - 128, moved + 127)
        steps += (Step("code_sum", parameters, (Operand("step"), Operand("leaf", 1))),)
        return Epilogue(steps, (leaf, view))
    return Epilogue(steps, (leaf,))


def _view(batch: int, channels: int, size: Any, halo: int, machine: Machine, dtype: str) -> View:
    lanes = machine.lanes(machine.codes)
    return dense_view(batch, -(-channels // lanes), int(size[0]), int(size[1]), lanes, halo, dtype)


def _places(shape: Any, view: View) -> Any:
    n, c, y, x = np.ix_(*map(np.arange, shape))
    return view.start + n * view.image + c // view.lanes * view.block + y * view.row + x * view.column + c % view.lanes


def _placed(values: Any, view: View, random: np.random.Generator, halo: int = 0) -> npt.NDArray[Any]:
    """An image with its border of `halo` in memory; what lies between is anything."""
    buffer = random.integers(0, 255, view.size).astype(view.dtype)
    corner = replace(view, start=view.start - halo * (view.row + view.column))
    buffer[_places(values.shape, corner)] = values.astype(view.dtype)
    return buffer


def _vector(values: Any, view: View) -> npt.NDArray[Any]:
    padded: Slots = np.zeros(view.blocks * view.lanes, "float32")
    padded[: len(values)] = values
    return padded
