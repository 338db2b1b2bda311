"""The default specification of a convolution or linear layer, from where its source and its result lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..graph.nodes import Convolution, Transposed
from ..graph.phases import Phase
from ..kernels.base import Task
from ..kernels.convolution import ConvolutionSpec, input_bands
from ..kernels.depthwise import DepthwiseSpec, depthwise_columns, weights_stay
from ..kernels.direct import fitted
from ..kernels.epilogue import Epilogue
from ..kernels.image import View
from ..kernels.integer_convolution import IntegerConvolutionSpec, integer_spec, steps_of
from ..kernels.integer_depthwise import integer_depthwise
from ..kernels.integer_results import moves_sums, sums_are_small
from ..kernels.integer_sparse import used_vectors
from ..kernels.interleaved import InterleavedSpec, part_of
from ..kernels.outside import left_out
from ..kernels.paired_convolution import paired_spec
from ..kernels.paired_depthwise import paired_depthwise
from ..kernels.tiles import Machine, Tile
from ..kernels.zeros import density, zeros_in_planes
from .layout import Image, in_a_row

__all__ = ["convolution_spec", "depthwise_spec", "interleaved_spec", "planes_task"]

_DENSE = 0.8
"""The share of weights that are not zero, above which kernels that read all of them are as fast."""


def convolution_spec(
    convolution: Convolution, source: Image, result: View, epilogue: Epilogue, machine: Machine
) -> ConvolutionSpec:
    """The direct kernel, pixels laid in a row where that is possible; a grouped layer's reads bands of its source."""
    view, rows, epilogue = _in_rows(convolution, source.view, result, epilogue)
    _, inputs, *window = convolution.weights.kernel.shape
    used = int(source.slots.max()) + 1
    spec = ConvolutionSpec(
        source=view,
        result=rows,
        blocks=-(-used // view.lanes),
        rest=used % view.lanes,
        banded=False,
        kernel=(window[0], window[1]),
        stride=convolution.stride,
        dilation=convolution.dilation,
        padding=(convolution.padding[0], convolution.padding[1]),
        tile=Tile(1, 1, 1),
        epilogue=epilogue,
        skips=left_out(convolution, view.height, view.width, view.dtype),
    )
    spec = fitted(spec, machine, inputs * window[0] * window[1])
    made = integer_spec(spec, machine)
    if made is not None:
        made = replace(made, moved=moves_sums(epilogue, machine.dot) and sums_are_small(convolution.weights))
    if convolution.groups == 1:
        spec = paired_spec(spec, machine) or spec
        return spec if made is None else replace(made, vectors=_few_vectors(made, convolution, source))
    spec = made or spec
    bands = input_bands(spec, convolution, source.slots)
    width = int((bands[:, 1] - bands[:, 0]).max()) + 1
    return replace(spec, blocks=width, rest=0, banded=True)


def _few_vectors(spec: IntegerConvolutionSpec, convolution: Convolution, source: Image) -> int:
    """`IntegerConvolutionSpec.vectors`."""
    if density(convolution) > _DENSE:
        return 0
    found = used_vectors(spec, convolution, source.slots)
    return found if found <= _DENSE * steps_of(spec) * spec.result.blocks else 0


def planes_task(convolution: Convolution, source: View, result: View, epilogue: Epilogue) -> Task:
    """A layer from planes to planes, depthwise and grouped ones too: its groups are zeros of a matrix of all channels."""
    height, width = convolution.weights.kernel.shape[2:]
    spec = ConvolutionSpec(
        source=source,
        result=result,
        blocks=source.blocks,
        rest=0,
        banded=False,
        kernel=(height, width),
        stride=convolution.stride,
        dilation=convolution.dilation,
        padding=(convolution.padding[0], convolution.padding[1]),
        tile=Tile(1, 1, 1),
        epilogue=epilogue,
    )
    return Task(spec, zeros_in_planes(convolution))


def _in_rows(convolution: Convolution, view: View, result: View, epilogue: Epilogue) -> tuple[View, View, Epilogue]:
    """Source, result and epilogue of a pointwise convolution on pixels in a row; as they are where that is not possible."""
    window = convolution.weights.kernel.shape[2:]
    pointwise = tuple(window) == convolution.stride == (1, 1) and not any(convolution.padding)
    if not pointwise or result.halo:
        return view, result, epilogue
    pixels = result.height * result.width > 1  # Else the batch becomes the row, of gates too.
    gated = [leaf if pixels and leaf.repeats else in_a_row(leaf) for leaf in epilogue.leaves]
    flat = [v for v in (in_a_row(view), in_a_row(result), *gated) if v is not None]
    if len(flat) < 2 + len(gated):
        return view, result, epilogue
    return flat[0], flat[1], replace(epilogue, leaves=tuple(flat[2:]))


def depthwise_spec(
    convolution: Convolution, source: View, result: View, epilogue: Epilogue, machine: Machine
) -> DepthwiseSpec:
    """The kernel for a layer of which every channel is a group of its own."""
    height, width = convolution.weights.kernel.shape[2:]
    columns = depthwise_columns(machine.one_by_one(source.dtype), result.width, convolution.stride[1], height * width)
    spec = DepthwiseSpec(
        source=source,
        result=result,
        kernel=(height, width),
        stride=convolution.stride,
        dilation=convolution.dilation,
        padding=(convolution.padding[0], convolution.padding[1]),
        columns=columns,
        epilogue=epilogue,
        weights_stay=weights_stay(machine, columns, height * width),
        skips=left_out(convolution, source.height, source.width, source.dtype),
    )
    made = integer_depthwise(spec, machine)
    if made is None:
        return paired_depthwise(spec, machine) or spec
    return replace(made, moved=moves_sums(epilogue, machine.dot) and sums_are_small(convolution.weights))


def interleaved_spec(
    phases: Sequence[Phase], transposed: Transposed, source: Image, result: View, epilogue: Epilogue, machine: Machine
) -> InterleavedSpec:
    """The kernel of a transposed convolution: those of its phases, depthwise ones where the layer is."""
    outputs, inputs = transposed.weights.kernel.shape[:2]
    depthwise = transposed.groups > 1 and inputs == 1 and outputs == transposed.groups
    specs: list[ConvolutionSpec | DepthwiseSpec] = []
    for phase in phases:
        views = [part_of(view, phase.first, phase.size, transposed.stride) for view in (result, *epilogue.leaves)]
        parted = replace(epilogue, leaves=tuple(views[1:]))
        if depthwise:
            specs.append(depthwise_spec(phase.convolution, source.view, views[0], parted, machine))
        else:
            specs.append(convolution_spec(phase.convolution, source, views[0], parted, machine))
    return InterleavedSpec(tuple(specs), tuple(phase.taps for phase in phases), result, epilogue)
