"""Which layers of a quantised network are faster in float32: where codes bring no more products at a time than Winograd's
algorithm saves, as 3x3 convolutions on cores without sums of products of bytes.
"""

from __future__ import annotations

from .choosing.layer_choices import names_of_weights
from .graph.read import read_relax
from .importing.importer import Imported
from .kernels.base import Task
from .kernels.convolution import ConvolutionSpec
from .kernels.direct import fitted
from .kernels.epilogue import Epilogue
from .kernels.families import DENSE, candidates
from .kernels.image import View, moving_cycles
from .kernels.tiles import Machine, Tile
from .lowering.layout import dense_view
from .lowering.plan import make_plan
from .pipeline import prepare

__all__ = ["faster_in_float"]

_CLEAR_SHARE = 0.9
"""What share of the cycles on codes a layer may take at most in float32, which is not the same bits on every machine."""
_CONVERTED = 2.0
"""Vectors that are loaded, computed and stored for each of a source that becomes float32."""


def faster_in_float(imported: Imported, machine: Machine) -> frozenset[str]:
    """The weights, by name, of layers on codes that take clearly fewer cycles in float32, its conversion counted.

    By the cost models of the kernels, whatever else chooses between them. None without vectors: there a product takes as long
    in either, and what is scarce is memory, of which float32 takes four times as much.
    """
    if machine.lanes() == 1:
        return frozenset()
    graph = read_relax(imported.module)
    names = names_of_weights(graph, imported.weights)
    prepare(graph, machine)
    return frozenset(
        names[step.node]
        for step in make_plan(graph, machine).kernels
        if step.layer is not None
        and step.layer.task is not None
        and step.layer.spec.source.is_code
        and step.node in names
        and _is_slow(step.layer.task, machine)
    )


def _is_slow(task: Task, machine: Machine) -> bool:
    codes = min(spec.cycles(machine) for spec in candidates(task, machine))
    twin = _in_float(task.spec, machine)
    if twin.banded:
        return False
    floats = min(spec.cycles(machine) for spec in candidates(Task(twin), machine, DENSE))
    return floats + _CONVERTED * moving_cycles(twin.source, 1, 1) < _CLEAR_SHARE * codes


def _in_float(spec: ConvolutionSpec, machine: Machine) -> ConvolutionSpec:
    """The same layer on float32."""
    steps = spec.blocks * spec.source.lanes * spec.kernel[0] * spec.kernel[1]
    twin = ConvolutionSpec(
        source=_floats(spec.source),
        result=_floats(spec.result),
        blocks=spec.blocks,
        rest=spec.rest,
        banded=spec.banded,
        kernel=spec.kernel,
        stride=spec.stride,
        dilation=spec.dilation,
        padding=spec.padding,
        tile=Tile(1, 1, 1),
        epilogue=Epilogue(),
    )
    return fitted(twin, machine, steps)


def _floats(view: View) -> View:
    return dense_view(view.batch, view.blocks, view.height, view.width, view.lanes, view.halo, flat=view.flat)
