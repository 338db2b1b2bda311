"""Times of a network's layers at any width, for pruning that aims at latency.

The times are cycles of the cost model, for the kernels that `compile` would choose by it; so they step where a width
starts another vector or another tile, which is what makes some widths not worth choosing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import fx

from ...passes.layers import Layer
from ...passes.operations import operations_of
from ...passes.rules import layer_of
from ...passes.values import Operation, example_shape
from ..kernels.base import Task
from ..kernels.convolution import ConvolutionSpec
from ..kernels.depthwise import depthwise_cycles
from ..kernels.direct import fitted
from ..kernels.epilogue import Epilogue
from ..kernels.families import candidates
from ..kernels.tiles import Machine, Tile
from ..lowering.layout import dense_view, thin
from ..machines.targets import Target
from .width import widths

__all__ = ["LayerShape", "LayerTimes", "layer_times"]


@dataclass(frozen=True)
class LayerShape:
    """A convolution or linear layer without its widths.

    Attributes:
        kernel, stride, dilation: height then width.
        batch, height, width: of the output; rows of a linear layer are the width.
        groups: of the dense layer; as many as it has channels in a depthwise one.
        depthwise: whether each channel is alone.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    batch: int
    height: int
    width: int
    groups: int = 1
    depthwise: bool = False


class LayerTimes:
    """Cycles of a layer on one core, by the name of its weight and the sizes of that weight's second and first axis."""

    def __init__(self, layers: Mapping[str, tuple[LayerShape, ...]], machine: Machine) -> None:
        """`layers`: every use of a weight."""
        self.layers = dict(layers)
        self._machine = machine
        self._cycles = cache(self._one)

    def __call__(self, name: str, channels_in: int, channels_out: int) -> float:
        """Cycles of all uses of the weight; 0 for a weight that is in no convolution or linear layer."""
        return sum(self._cycles(shape, channels_in, channels_out) for shape in self.layers.get(name, ()))

    def table(self, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> list[list[float]]:
        """Cycles for every pair of widths: a row for each of `inputs`, a column for each of `outputs`."""
        return [[self(name, i, o) for o in outputs] for i in inputs]

    def _one(self, shape: LayerShape, channels_in: int, channels_out: int) -> float:
        if not channels_in or not channels_out:
            return 0.0
        # A network is compiled with the width of blocks that fits it; which one that is, is not known before it is pruned.
        return min(_cycles(shape, channels_in, channels_out, machine) for machine in widths(self._machine))


def _cycles(shape: LayerShape, channels_in: int, channels_out: int, machine: Machine) -> float:
    """Of the fastest kernel."""
    if shape.depthwise:
        blocks, pixels = -(-channels_out // machine.lanes()), shape.batch * shape.height * shape.width
        return depthwise_cycles(machine, blocks, pixels, shape.kernel[0] * shape.kernel[1])
    groups = min(shape.groups, channels_out)
    spec = specification(shape, channels_in, -(-channels_out // groups), machine)
    return groups * min(candidate.cycles(machine) for candidate in candidates(Task(spec), machine))


def layer_times(module: fx.GraphModule, target: Target) -> LayerTimes:
    """The layers of a captured module, for a machine. `module` names weights as pruning does: it must be canonical."""
    layers: dict[str, tuple[LayerShape, ...]] = {}
    for operation in operations_of(module).values():
        layer = layer_of(operation)
        shape = _shape(operation, layer) if layer is not None else None
        if layer is not None and shape is not None and operation.tensor("weight") is not None:
            name = str(layer.weight.target)
            layers[name] = (*layers.get(name, ()), shape)
    return LayerTimes(layers, target.machine)


def specification(shape: LayerShape, channels_in: int, channels_out: int, machine: Machine) -> ConvolutionSpec:
    """The layer as the backend lays it out, alone in the network."""
    lanes = machine.lanes()
    lanes_in = 1 if channels_in <= thin(machine) and shape.kernel != (1, 1) else lanes
    batch, height, width = shape.batch, shape.height, shape.width
    if shape.kernel == shape.stride == (1, 1):
        batch, height, width = (1, 1, batch * width) if height * width == 1 else (batch, 1, height * width)
    halo = max(shape.kernel) // 2
    blocks = -(-channels_out // lanes)
    result = dense_view(batch, blocks, height, width, lanes, 0)
    source = dense_view(
        batch, -(-channels_in // lanes_in), height * shape.stride[0], width * shape.stride[1], lanes_in, halo
    )
    spec = ConvolutionSpec(
        source=source,
        result=result,
        blocks=source.blocks,
        rest=channels_in % lanes_in,
        banded=False,
        kernel=shape.kernel,
        stride=shape.stride,
        dilation=shape.dilation,
        padding=(halo, halo),
        tile=Tile(1, 1, 1),
        epilogue=Epilogue(),
    )
    return fitted(spec, machine, channels_in * shape.kernel[0] * shape.kernel[1])


def _shape(operation: Operation, layer: Layer) -> LayerShape | None:
    """The layer without its widths, one along a line as one of height 1; None for one that has no times here."""
    result = example_shape(operation.module, operation.node)
    if not layer.convolution:
        return LayerShape((1, 1), (1, 1), (1, 1), 1, 1, math.prod(result[:-1]))
    axes = len(layer.taps)
    if axes not in (1, 2) or len(result) != axes + 2 or layer.transposed:
        return None
    kernel = _pair(example_shape(operation.module, layer.weight)[2:], axes)
    stride, dilation = (_pair(operation.get(name, 1), axes) for name in ("stride", "dilation"))
    return LayerShape(kernel, stride, dilation, result[0], *_pair(result[2:], axes), layer.groups, layer.depthwise)


def _pair(value: Any, axes: int) -> tuple[int, int]:
    """Of rows and columns, from a number for all axes, a list of one, or one of all; a line has one row."""
    values = [value] if isinstance(value, int) else list(value)
    rows, columns = (1, *(values * axes)[:axes])[-2:]
    return int(rows), int(columns)
