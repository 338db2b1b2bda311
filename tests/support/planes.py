"""Layers with zeros, images in planes as kernels take them, and a judge that wants all of a network there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tvm
from torch import nn
from torch.nn import functional as F

from reconvene.backends.graph.nodes import Convolution, Weights
from reconvene.backends.kernels.base import Spec, Task
from reconvene.backends.kernels.epilogue import Epilogue
from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.planes import is_planes, plane_view
from reconvene.backends.lowering.layers import planes_task

__all__ = ["InPlanes", "PlanesLayer", "laid_out", "read_back", "results", "zeros_in_rows"]


def zeros_in_rows(module: nn.Module, share: float, rows: int, seed: int = 0) -> nn.Module:
    """`module` with that share of each weight zero, at the same places in `rows` neighbouring filters; biases keep theirs."""
    random = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.data
            kept = torch.rand(-(-len(weight) // rows), *weight.shape[1:], generator=random) >= share
            weight *= kept.repeat_interleave(rows, 0)[: len(weight)]
    return module


@dataclass(frozen=True)
class PlanesLayer:
    """A convolution; `shared` neighbouring filters have zeros at the same places, in `blocks` of columns other ones."""

    inputs: int
    outputs: int
    size: tuple[int, int]
    window: int = 3
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    batch: int = 1
    zeros: float = 0.7
    shared: int = 4
    blocks: int = 1

    @property
    def padding(self) -> int:
        return (self.window - 1) * self.dilation // 2

    def convolution(self) -> Convolution:
        random = np.random.default_rng(0)
        shape = (self.outputs, self.inputs // self.groups * self.window**2)
        kept = []
        for columns in np.array_split(np.arange(shape[1]), self.blocks):
            mask = np.repeat(
                random.random((-(-self.outputs // self.shared), len(columns))) >= self.zeros, self.shared, 0
            )
            order = random.permutation(self.outputs) if self.blocks > 1 else np.arange(self.outputs)
            kept.append(mask[: self.outputs][order])
        kernel = random.standard_normal(shape) * np.concatenate(kept, axis=1)
        kernel = kernel.reshape(self.outputs, -1, self.window, self.window)
        p = self.padding
        return Convolution(
            Weights(kernel, random.standard_normal(self.outputs)), (self.stride, self.stride), (p, p, p, p),
            (self.dilation, self.dilation), self.groups,
        )  # fmt: skip

    def image(self) -> np.ndarray:
        return np.random.default_rng(1).standard_normal((self.batch, self.inputs, *self.size)).astype("float32")

    def expected(self) -> np.ndarray:
        layer = self.convolution()
        given = [
            torch.from_numpy(a) for a in (self.image().astype("float64"), layer.weights.kernel, layer.weights.bias)
        ]
        return F.conv2d(*given, self.stride, self.padding, self.dilation, self.groups).numpy()  # type: ignore[no-any-return]

    def task(self, halo: int = 1, epilogue: Epilogue = Epilogue()) -> Task:  # noqa: B008
        height, width = ((extent - 1) // self.stride + 1 for extent in self.size)
        rest = (self.window - 1) * self.dilation // self.stride
        source = plane_view(self.batch, self.inputs, *self.size, self.padding, self.size[1] + max(self.padding, halo))
        pitch = source.row if self.stride == 1 else width + max(halo, rest)
        return planes_task(self.convolution(), source, self.result(halo, height, width, pitch), epilogue)

    def result(self, halo: int, height: int, width: int, pitch: int) -> Any:
        return plane_view(self.batch, self.outputs, height, width, halo, pitch)


def laid_out(image: np.ndarray, view: View) -> np.ndarray:
    """``(N, C, H, W)`` in planes: zeros in the border, and where nobody may look, NaN."""
    buffer = np.full(view.size, np.nan, "float32")
    for n, planes in enumerate(image):
        for c, plane in enumerate(planes):
            first = view.offset(n, c, 0, 0)
            last = first + (view.height - 1) * view.row + view.width
            if view.halo:
                around = view.halo * (view.row + 1)
                buffer[first - around : last + around] = 0
            for y, row in enumerate(plane):
                buffer[first + y * view.row : first + y * view.row + view.width] = row
    return buffer


def read_back(buffer: np.ndarray, view: View, channels: int) -> np.ndarray:
    """What a kernel wrote in planes as ``(N, C, H, W)``. Its border has to be zeros, between the rows and around them."""
    found = np.empty((view.batch, channels, view.height, view.width), "float32")
    for n in range(view.batch):
        for c in range(channels):
            first, around = view.offset(n, c, 0, 0), view.halo * (view.row + 1)
            last = first + (view.height - 1) * view.row + view.width
            written = buffer[first - around : last + around].copy()
            for y in range(view.height):
                row = slice(around + y * view.row, around + y * view.row + view.width)
                found[n, c, y] = written[row]
                written[row] = 0
            if view.halo:
                assert not written[: around - view.halo].any() and not written[len(written) - around :].any()
                gaps = written[around : len(written) - around]
                columns = np.arange(len(gaps)) % view.row
                near = (columns < view.width + view.halo) | (columns >= view.row - view.halo)
                assert not gaps[near].any()
    return found


def results(specs: Sequence[Any], case: PlanesLayer) -> list[np.ndarray]:
    """What kernels compute, from buffers with NaN wherever nothing was written."""
    functions = {f"kernel{i}": spec.function(f"kernel{i}") for i, spec in enumerate(specs)}
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    library = tvm.compile(tvm.IRModule(named), target={"kind": "llvm", "opt-level": 1})
    found = []
    for spec, (name, function) in zip(specs, functions.items(), strict=True):
        shapes = [(tuple(int(extent) for extent in p.shape), str(p.dtype)) for p in function.params]
        packed = spec.pack(case.convolution(), np.arange(case.inputs))
        assert [(array.shape, str(array.dtype)) for array in packed] == shapes[1 : 1 + len(packed)]
        given = [laid_out(case.image(), spec.source), *packed]
        rest = [np.full(shape, np.nan, dtype) for shape, dtype in shapes[len(given) :]]
        assert [shape for shape, _ in shapes[len(given) + 1 :]] == [(size,) for size in spec.workspace]
        tensors = [tvm.runtime.tensor(array) for array in (*given, *rest)]
        library[name](*tensors)
        found.append(read_back(tensors[len(given)].numpy(), spec.result, case.outputs))
    return found


class InPlanes:
    """Costs by which everything that can lies in planes, computed by the first candidate there, depthwise layers by theirs."""

    def __call__(self, layers: Sequence[Sequence[Spec]]) -> list[list[float]]:
        return [[self._cost(spec, number) for number, spec in enumerate(row, start=1)] for row in layers]

    def _cost(self, spec: Spec, number: int) -> float:
        return (0.5 if spec.family == "plane_depthwise" else number) + (0.0 if self._in_planes(spec) else 1e6)

    def _in_planes(self, spec: Spec) -> bool:
        views = [view for view in vars(spec).values() if isinstance(view, View)]
        return bool(views) and is_planes(views[-1])
