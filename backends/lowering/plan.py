"""Decides where every value of a graph lies, which kernel computes it, and in which order.

Nothing is built and no weight is packed here: `emit` makes Relax of a plan, and whoever wants to know what a network
needs reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..dtypes import DTYPES
from ..graph.fusion import Group, group_nodes
from ..graph.nodes import Convolution, Frame, Graph, Node, Pool, Reindex, Scalar
from ..kernels.base import Task
from ..kernels.elementwise import ConcatSpec, ElementwiseSpec
from ..kernels.epilogue import Epilogue, Operand, Step
from ..kernels.frame import FrameSpec
from ..kernels.image import Slots, View
from ..kernels.matrices import ProductSpec, SoftmaxSpec
from ..kernels.pooling import MeanSpec, PoolSpec
from ..kernels.relayout import PackSpec, RearrangeSpec, UnpackSpec
from ..kernels.tiles import Machine, choose_tile
from .layers import convolution_spec, depthwise_spec
from .layout import Image, dense_view, flattened, pack_vector, selected, thin
from .steps import Kept, KernelPlan, Placed, PlacedLayer, Value

__all__ = ["make_plan"]


def make_plan(graph: Graph, machine: Machine) -> KernelPlan:
    """The plan for a graph that was folded. Values are kept as images (blocked) or plain, and converted on demand."""
    return _Planner(graph, machine).plan()


class _Planner:
    def __init__(self, graph: Graph, machine: Machine) -> None:
        self.graph = graph
        self.machine = machine
        self.steps: list[Placed | Kept] = []
        self.images: dict[Node, Image] = {}
        self.compact: dict[Node, Image] = {}
        self.plains: dict[Node, Value] = {}
        self.halos = _halos(graph)

    def plan(self) -> KernelPlan:
        for group in group_nodes(self.graph):
            self._group(group)
        results = tuple(self._plain(node) for node in self.graph.outputs)
        return KernelPlan(self.graph, self.machine, tuple(self.steps), results)

    def _group(self, group: Group) -> None:
        node = group.anchor or group.sink
        if node.op in ("input", "constant"):
            return
        if node.op in ("foreign", "item", "reshape") or (node.op == "flatten" and node.inputs[0] not in self.images):
            self.plains[node] = self._kept(node)
        elif node.op == "product":
            self.plains[node] = self._product(node)
        elif node.op == "softmax":
            spec = SoftmaxSpec(node.shape, self.machine.lanes(node.dtype), self.machine.keeps_nans, node.dtype)
            self.plains[node] = self._call(Placed(node, spec, (self._plain(node.inputs[0]),), node.shape))
        elif node.op == "reindex":
            source = np.array(node.detail_as(Reindex).source, dtype="int64")
            self.images[node] = selected(self._image(node.inputs[0]), source)
        elif node.op == "flatten":
            self.images[node] = flattened(self._image(node.inputs[0]))
        else:
            lay_out: dict[str, Callable[[Group], Image]] = {
                "convolution": self._convolution,
                "pool": self._pool,
                "mean": self._mean,
                "concat": self._concat,
                "frame": self._frame,
                "scalar": self._elementwise,
            }
            self.images[group.sink] = lay_out[node.op](group)

    def _convolution(self, group: Group) -> Image:
        node = _anchor(group)
        convolution = node.detail_as(Convolution)
        outputs, inputs = convolution.weights.kernel.shape[:2]
        if convolution.groups > 1 and inputs == 1 and outputs == convolution.groups:
            return self._depthwise(group, node, convolution)
        source = self._thin_image(node.inputs[0]) if convolution.groups == 1 else None
        source = source or self._dense_image(node.inputs[0])
        batch, _, height, width = node.image_shape
        lanes = self.machine.lanes(node.dtype)
        halo = self.halos.get(group.sink, 0)
        result = dense_view(batch, -(-outputs // lanes), height, width, lanes, halo, node.dtype)
        slots = np.arange(outputs, dtype="int64")
        epilogue, leaves = self._epilogue(group, result, slots)
        spec = convolution_spec(convolution, source, result, epilogue, self.machine)
        layer = PlacedLayer(convolution, source.slots, spec, None if spec.banded else Task(spec))
        step = Placed(node, spec, (source.value,), (result.size,), leaves=leaves, layer=layer)
        return Image(self._call(step), result, slots)

    def _depthwise(self, group: Group, node: Node, convolution: Convolution) -> Image:
        source = self._image(node.inputs[0])
        batch, _, height, width = node.image_shape
        view = source.view
        halo = self.halos.get(group.sink, 0)
        result = dense_view(batch, view.blocks, height, width, view.lanes, halo, node.dtype)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        spec = depthwise_spec(convolution, view, result, epilogue, self.machine)
        layer = PlacedLayer(convolution, source.slots, spec)
        step = Placed(node, spec, (source.value,), (result.size,), leaves=leaves, layer=layer)
        return Image(self._call(step), result, source.slots)

    def _pool(self, group: Group) -> Image:
        pool = _anchor(group).detail_as(Pool)

        def spec(source: View, result: View, epilogue: Epilogue) -> PoolSpec:
            return PoolSpec(
                kind=pool.kind,
                source=source,
                result=result,
                window=pool.window,
                stride=pool.stride,
                padding=pool.padding[:2],
                counts_padding=pool.counts_padding,
                epilogue=epilogue,
            )

        return self._of_one(group, spec)

    def _mean(self, group: Group) -> Image:
        return self._of_one(group, MeanSpec)

    def _frame(self, group: Group) -> Image:
        frame = _anchor(group).detail_as(Frame)
        return self._of_one(
            group,
            lambda source, result, epilogue: FrameSpec(
                source, result, frame.margins[:2], frame.step, frame.fill, epilogue
            ),
        )

    def _of_one(self, group: Group, make: Callable[[View, View, Epilogue], Any]) -> Image:
        """What computes each channel from the same channel of one image."""
        node = _anchor(group)
        source = self._image(node.inputs[0])
        result = self._like(source, group.sink)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        spec = make(source.view, result, epilogue)
        step = Placed(node, spec, (source.value,), (result.size,), leaves=leaves)
        return Image(self._call(step), result, source.slots)

    def _concat(self, group: Group) -> Image:
        node = _anchor(group)
        parts = [self._image(part) for part in node.inputs]
        lanes = self.machine.lanes(node.dtype)
        firsts = np.cumsum([0] + [part.view.blocks for part in parts])
        slots = np.concatenate([part.slots + first * lanes for part, first in zip(parts, firsts, strict=False)])
        batch, _, height, width = group.sink.image_shape
        halo = self.halos.get(group.sink, 0)
        result = dense_view(batch, int(firsts[-1]), height, width, lanes, halo, node.dtype)
        if Image(node, result, slots).wasteful:
            joined = self._rearranged(node, parts, self.halos.get(group.sink, 0))
            return self._elementwise(group, joined) if group.scalars else joined
        epilogue, leaves = self._epilogue(group, result, slots)
        spec = ConcatSpec(tuple(part.view for part in parts), result, epilogue)
        step = Placed(node, spec, tuple(part.value for part in parts), (result.size,), leaves=leaves)
        return Image(self._call(step), result, slots)

    def _elementwise(self, group: Group, anchor: Image | None = None) -> Image:
        """Elementwise nodes alone, or after an `anchor` that was computed before."""
        leading = anchor or self._image(_leading(group))
        result = self._like(leading, group.sink)
        epilogue, leaves = self._epilogue(group, result, leading.slots, anchor)
        step = Placed(group.sink, ElementwiseSpec(result, epilogue), (), (result.size,), leaves=leaves)
        return Image(self._call(step), result, leading.slots)

    def _product(self, node: Node) -> Placed:
        left, right = node.inputs
        rows, columns = node.shape[-2:]
        lanes = min(self.machine.lanes(node.dtype), 1 << (columns.bit_length() - 1))
        tile = choose_tile(self.machine, columns // lanes, 1, rows, left.shape[-1])
        spec = ProductSpec(left.shape, right.shape, lanes, tile.columns, tile.blocks, node.dtype)
        return self._call(Placed(node, spec, (self._plain(left), self._plain(right)), node.shape))

    def _epilogue(
        self, group: Group, result: View, slots: Slots, anchor: Image | None = None
    ) -> tuple[Epilogue, tuple[Value, ...]]:
        """The steps of the group's elementwise nodes, and the values of the images they read."""
        steps: list[Step] = []
        position = {node: Operand("step", i) for i, node in enumerate(group.scalars)}
        leaves: dict[Node, int] = {}
        views: list[View] = []
        values: list[Value] = []

        def operand(node: Node) -> Operand:
            if node in position:
                return position[node]
            if node is group.anchor and anchor is None:
                return Operand("anchor")
            if node.op == "constant" and node.detail_as(np.ndarray).size == 1:
                return Operand("number", value=float(node.detail_as(np.ndarray).reshape(())))
            if node not in leaves:
                leaves[node] = len(views)
                view, value = (
                    (anchor.view, anchor.value)
                    if anchor is not None and node is group.anchor
                    else self._leaf(node, result, slots)
                )
                views.append(view)
                values.append(value)
            return Operand("leaf", leaves[node])

        for node in group.scalars:
            operands = tuple(operand(source) for source in node.inputs)
            scalar = node.detail_as(Scalar)
            steps.append(Step(scalar.function, scalar.parameters, operands))
        return Epilogue(tuple(steps), tuple(views), self.machine.keeps_nans, DTYPES[result.dtype].accumulator), tuple(
            values
        )

    def _leaf(self, node: Node, result: View, slots: Slots) -> tuple[View, Value]:
        """How an epilogue of `result` reads `node`: pixel by pixel, or one vector of channels for all
        pixels.
        """
        if node.op == "constant":
            packed = pack_vector(node.detail_as(np.ndarray).reshape(-1), slots, result)
            view = dense_view(1, result.blocks, 1, 1, result.lanes, 0, result.dtype)
            return replace(view, image=0, row=0, column=0), packed
        image = self._image(node)
        if image.view.blocks != result.blocks or not np.array_equal(image.slots, slots):
            image = self._rearranged(node, [image], 0, slots, result.blocks)
        view = image.view
        if (view.height, view.width) != (result.height, result.width):
            view = replace(view, row=0, column=0)
        return view, image.value

    def _like(self, source: Image, sink: Node) -> View:
        """An image for `sink` with the blocks of `source`."""
        batch, _, height, width = sink.image_shape
        view, halo = source.view, self.halos.get(sink, 0)
        return dense_view(batch, view.blocks, height, width, view.lanes, halo, sink.dtype)

    def _image(self, node: Node) -> Image:
        """`node` in blocks, packed from its plain value where it has only that."""
        if node not in self.images:
            self.images[node] = self._packed(node, self.machine.lanes(node.dtype))
        return self.images[node]

    def _thin_image(self, node: Node) -> Image | None:
        """`node` with a lane for each plane, for plain values of few channels."""
        if node in self.images or node.image_shape[1] > thin(self.machine) or node.image_shape[2:] == (1, 1):
            return None
        if node not in self.compact:
            self.compact[node] = self._packed(node, 1)
        return self.compact[node]

    def _dense_image(self, node: Node) -> Image:
        """`node` without wasteful gaps, for readers whose time grows with the gaps."""
        image = self._image(node)
        if not image.wasteful or image.view.height * image.view.width == 1:
            return image
        if node not in self.compact:
            self.compact[node] = self._rearranged(node, [image], image.view.halo)
        return self.compact[node]

    def _packed(self, node: Node, lanes: int) -> Image:
        batch, channels, height, width = node.image_shape
        halo = self.halos.get(node, 0)
        view = dense_view(batch, -(-channels // lanes), height, width, lanes, halo, node.dtype)
        step = Placed(node, PackSpec(channels, node.shape, view), (self._plain(node),), (view.size,))
        return Image(self._call(step), view, np.arange(channels, dtype="int64"))

    def _plain(self, node: Node) -> Value:
        """`node` with its logical shape, rows of pixels in order."""
        if node.op in ("input", "constant"):
            return node
        if node not in self.plains:
            image = self.images[node]
            channels = len(image.slots)
            tabled = not np.array_equal(image.slots, np.arange(channels))
            spec = UnpackSpec(image.view, channels, node.shape, tabled)
            tables = (image.slots.astype("int32"),) if tabled else ()
            self.plains[node] = self._call(Placed(node, spec, (image.value,), node.shape, tables))
        return self.plains[node]

    def _rearranged(
        self, node: Node, images: Sequence[Image], halo: int, slots: Slots | None = None, blocks: int | None = None
    ) -> Image:
        """All channels of `images` copied to `slots` of one image; by default one after the other."""
        lanes = self.machine.lanes(node.dtype)
        counts = tuple(len(image.slots) for image in images)
        if slots is None:
            slots = np.arange(sum(counts), dtype="int64")
        view = images[0].view
        blocks = blocks or -(-len(slots) // lanes)
        result = dense_view(view.batch, blocks, view.height, view.width, lanes, halo, view.dtype)
        parts = np.split(slots, np.cumsum(counts)[:-1])
        tables = tuple(
            np.stack([image.slots, part], axis=1).astype("int32").reshape(-1)
            for image, part in zip(images, parts, strict=True)
        )
        spec = RearrangeSpec(tuple(image.view for image in images), counts, result)
        step = Placed(node, spec, tuple(image.value for image in images), (result.size,), tables)
        return Image(self._call(step), result, slots)

    def _kept(self, node: Node) -> Kept:
        step = Kept(node, tuple(self._plain(source) for source in node.inputs))
        self.steps.append(step)
        return step

    def _call(self, placed: Placed) -> Placed:
        self.steps.append(placed)
        return placed


def _anchor(group: Group) -> Node:
    if group.anchor is None:
        raise AssertionError(f"group of '{group.sink.name}' has no anchor")
    return group.anchor


def _leading(group: Group) -> Node:
    """The input of an elementwise group whose channel slots the result takes."""
    members = {*group.scalars, group.anchor}
    outside = [source for node in group.scalars for source in node.inputs if source not in members]
    return next(n for n in outside if n.op != "constant" and n.shape == group.sink.shape)


def _halos(graph: Graph) -> dict[Node, int]:
    """The zero border every value needs, for the convolutions that read it with padding."""
    halos: dict[Node, int] = {}
    for node in reversed(graph.nodes):
        if node.op == "convolution" and any(node.detail_as(Convolution).padding):
            source = node.inputs[0]
            halos[source] = max(halos.get(source, 0), *node.detail_as(Convolution).padding)
        elif node.op == "reindex" and node in halos:
            halos[node.inputs[0]] = max(halos.get(node.inputs[0], 0), halos[node])
    return halos
