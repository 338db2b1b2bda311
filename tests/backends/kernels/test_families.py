"""What every family of kernels promises: its candidates read what they pack, and compute the layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional as F

from reconvene.backends.graph.nodes import Convolution, Weights
from reconvene.backends.kernels.base import Family, LayerSpec, Task
from reconvene.backends.kernels.convolution import ConvolutionSpec
from reconvene.backends.kernels.direct import fitted
from reconvene.backends.kernels.epilogue import Epilogue
from reconvene.backends.kernels.families import FAMILIES, candidates
from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.tiles import Machine, Tile
from reconvene.backends.lowering.layout import dense_view

MACHINE = Machine(16, 16, 2**18, cores=2)


def task(inputs: int, outputs: int, size: int, window: int) -> Task:
    """A padded convolution."""
    halo = window // 2
    source = dense_view(1, -(-inputs // 4), size, size, 4, halo)
    spec = ConvolutionSpec(
        source=source, result=dense_view(1, -(-outputs // 4), size, size, 4, 0), blocks=source.blocks, rest=inputs % 4,
        banded=False, kernel=(window, window), stride=(1, 1), dilation=(1, 1), padding=(halo, halo),
        tile=Tile(1, 1, 1), epilogue=Epilogue(),
    )  # fmt: skip
    return Task(fitted(spec, MACHINE, inputs * window**2))


TASKS = {"3x3": task(6, 9, 7, 3), "1x1": task(8, 5, 5, 1), "5x5": task(3, 8, 6, 5)}


def weights_for(spec: ConvolutionSpec, inputs: int, outputs: int) -> Convolution:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((outputs, inputs, *spec.kernel))
    halo = spec.padding[0]
    return Convolution(Weights(kernel, random.standard_normal(outputs)), padding=(halo, halo, halo, halo))


def blocked(image: np.ndarray, view: View) -> np.ndarray:
    """``(C, H, W)`` as the view lays it out, with a border of zeros."""
    room = np.zeros((view.blocks * view.lanes, view.height + 2 * view.halo, view.width + 2 * view.halo), "float32")
    room[: image.shape[0], view.halo : view.halo + view.height, view.halo : view.halo + view.width] = image
    return room.reshape(view.blocks, view.lanes, *room.shape[1:]).transpose(0, 2, 3, 1).reshape(-1).copy()


def shapes(function: tvm.tirx.PrimFunc) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(int(extent) for extent in p.shape), str(p.dtype)) for p in function.params]


def run(spec: LayerSpec, packed: Sequence[np.ndarray], image: np.ndarray, task: Task) -> np.ndarray:
    function = spec.function("kernel").with_attr("global_symbol", "kernel")
    compiled = tvm.compile(tvm.IRModule({"kernel": function}), target="llvm")["kernel"]
    given = [blocked(image, task.spec.source), *packed]
    rest = [np.full(shape, 7, dtype) for shape, dtype in shapes(function)[len(given) :]]
    compiled(*(tvm.runtime.tensor(array) for array in given), *(results := [tvm.runtime.tensor(a) for a in rest]))
    view = task.spec.result
    return results[0].numpy().reshape(view.blocks, view.height, view.width, view.lanes).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_candidates_compute_the_layer_from_what_they_pack(family: Family, name: str) -> None:
    given = TASKS[name]
    inputs, outputs = {"3x3": (6, 9), "1x1": (8, 5), "5x5": (3, 8)}[name]
    layer = weights_for(given.spec, inputs, outputs)
    image = np.random.default_rng(1).standard_normal((inputs, given.spec.source.height, given.spec.source.width))
    expected = F.conv2d(
        torch.from_numpy(image)[None], torch.from_numpy(layer.weights.kernel), torch.from_numpy(layer.weights.bias),
        padding=given.spec.padding,
    )[0].numpy()  # fmt: skip
    for spec in family.candidates(given, MACHINE):
        packed = spec.pack(layer, np.arange(inputs))
        parameters = shapes(spec.function("kernel"))
        assert [(array.shape, str(array.dtype)) for array in packed] == parameters[1 : 1 + len(packed)]
        assert [shape for shape, _ in parameters[len(parameters) - len(spec.workspace) :]] == [
            (size,) for size in spec.workspace
        ]
        assert spec.weight_bytes >= 4 * layer.weights.kernel.size and spec.cycles(MACHINE) > 0
        result = run(spec, packed, image, given).reshape(-1, *expected.shape[1:])[:outputs]
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_first_candidate_is_the_layer_as_it_is_planned() -> None:
    """It is what is computed by where nothing else is clearly better."""
    for given in TASKS.values():
        found = candidates(given, MACHINE)
        assert found[0] == given.spec and len(set(found)) == len(found)
        assert len({spec.macs for spec in found}) == 1
