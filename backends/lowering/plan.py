"""Decides where every value of a graph lies, which kernel computes it, and in which order.

Nothing is built and no weight is packed here: `emit` makes Relax of a plan, and whoever wants to know what a network
needs reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..dtypes import DTYPES
from ..graph.fusion import Group, group_nodes
from ..graph.nodes import Array, Convolution, Frame, Graph, Node, Normalization, Pool, Reindex, Scalar, Transposed
from ..graph.phases import phases_of
from ..kernels.base import Task
from ..kernels.codes import CODES
from ..kernels.elementwise import ConcatSpec, ElementwiseSpec
from ..kernels.epilogue import Epilogue, Operand, Step
from ..kernels.families import candidates
from ..kernels.frame import FrameSpec
from ..kernels.image import Slots, View
from ..kernels.matrices import ProductSpec, SoftmaxSpec
from ..kernels.normalizing import NormalizeSpec
from ..kernels.planes import is_planes
from ..kernels.pooling import LargestSpec, MeanSpec, PoolSpec
from ..kernels.row_norm import RowNormSpec
from ..kernels.row_zeros import RowZeros, zeros_in_rows
from ..kernels.scalar import rounds_once
from ..kernels.table import TableSpec
from ..kernels.tiles import Machine, choose_tile
from .images import Images
from .layers import convolution_spec, depthwise_spec, interleaved_spec, planes_task
from .layout import Image, dense_view, flattened, pack_image, pack_vector, selected
from .steps import KernelPlan, Placed, PlacedLayer, Value

__all__ = ["make_plan", "may_lie_in_planes"]

_IN_PLANES = frozenset({"convolution", "pool", "mean", "concat", "scalar"})
"""Operations with kernels whose vectors run along pixels."""
_CODES_OF_A_WORD, _WORDS = 4, 4
"""Channels of a block on machines whose vectors hold so many words: codes of one pixel, and pixels, in a vector of bytes."""


def make_plan(graph: Graph, machine: Machine, planes: Collection[Node] = ()) -> KernelPlan:
    """The plan for a graph that was folded. Values are kept as images or plain, and converted on demand.

    Args:
        planes: the last nodes of the groups that are computed from planes to planes; `lies_in_planes` of all of them. The
            others' images are in blocks.
    """
    return _Planner(graph, machine, planes).plan()


def may_lie_in_planes(group: Group, machine: Machine) -> bool:
    """Whether a group can be computed from planes to planes."""
    node = group.anchor or group.sink
    if machine.lanes() == 1 or node.op not in _IN_PLANES or node.dtype != "float32":
        return False
    if any(DTYPES[read.dtype].is_code for part in (node, *group.scalars) for read in (part, *part.inputs)):
        return False
    source = node.inputs[0] if group.anchor else node
    return source.image_shape[2:] != (1, 1) and (node.op == "mean" or node.image_shape[2:] != (1, 1))


class _Planner:
    def __init__(self, graph: Graph, machine: Machine, planes: Collection[Node]) -> None:
        self.graph = graph
        self.machine = machine
        self.planes = frozenset(planes)
        self.images = Images(graph, machine)
        self.zeros: dict[int, RowZeros | None] = {}

    def plan(self) -> KernelPlan:
        for group in group_nodes(self.graph):
            self._group(group)
        results = tuple(self.images.plain(node) for node in self.graph.outputs)
        return KernelPlan(self.graph, self.machine, tuple(self.images.steps), results)

    def _group(self, group: Group) -> None:
        node = group.anchor or group.sink
        if node.op in ("input", "constant"):
            return
        images = self.images
        if node.op in ("foreign", "item", "reshape", "convert") or (
            node.op == "flatten" and node.inputs[0] not in images
        ):
            images.keep(node)
        elif node.op == "product":
            images.put_plain(node, self._product(node))
        elif node.op == "softmax":
            spec = SoftmaxSpec(node.shape, self.machine.lanes(node.dtype), self.machine.keeps_nans, node.dtype)
            images.put_plain(node, images.call(Placed(node, spec, (images.plain(node.inputs[0]),), node.shape)))
        elif node.op == "layer_norm":
            images.put_plain(node, self._layer_norm(node))
        elif node.op == "reindex":
            source = np.array(node.detail_as(Reindex).source, dtype="int64")
            images.put(node, selected(images.native(node.inputs[0]), source))
        elif node.op == "flatten":
            images.put(node, flattened(images.blocks(node.inputs[0])))
        else:
            lay_out: dict[str, Callable[[Group], Image]] = {
                "convolution": self._convolution,
                "transposed": self._transposed,
                "normalize": self._normalize,
                "pool": self._pool,
                "mean": self._mean,
                "largest": lambda group: self._of_one(group, LargestSpec),
                "total": self._mean,
                "table": self._table,
                "concat": self._concat,
                "frame": self._frame,
                "scalar": self._elementwise,
            }
            images.put(group.sink, lay_out[node.op](group))

    def _read(self, group: Group, node: Node) -> Image:
        """`node` as the group reads its images."""
        return self.images.planes(node) if group.sink in self.planes else self.images.blocks(node)

    def _convolution(self, group: Group) -> Image:
        node = _anchor(group)
        convolution = node.detail_as(Convolution)
        outputs, inputs = convolution.weights.kernel.shape[:2]
        if group.sink in self.planes:
            return self._gathered(group, node, convolution)
        if convolution.groups > 1 and inputs == 1 and outputs == convolution.groups:
            return self._depthwise(group, node, convolution)
        source = self.images.thin(node.inputs[0]) if convolution.groups == 1 else None
        source = source or self.images.dense(node.inputs[0])
        lanes = self.machine.lanes(node.dtype)
        result = self.images.blocks_view(group.sink, -(-outputs // lanes), lanes)
        slots = np.arange(outputs, dtype="int64")
        epilogue, leaves = self._epilogue(group, result, slots)
        spec = convolution_spec(convolution, source, result, epilogue, self.machine)
        task = None if spec.banded else Task(spec, self._zeros(convolution, lanes))
        layer = PlacedLayer(convolution, source.slots, spec, task)
        step = Placed(node, spec, (source.value,), (result.size,), leaves=leaves, layer=layer, dtype=result.dtype)
        return Image(self.images.call(step), result, slots)

    def _zeros(self, convolution: Convolution, lanes: int) -> RowZeros | None:
        """What is known of a layer's zeros, found once for all layers that share their weights."""
        key = id(convolution.weights)
        if key not in self.zeros:
            self.zeros[key] = zeros_in_rows(convolution, lanes)
        return self.zeros[key]

    def _gathered(self, group: Group, node: Node, convolution: Convolution) -> Image:
        source = self.images.planes(node.inputs[0])
        outputs = convolution.weights.kernel.shape[0]
        result = self.images.planes_view(group.sink, outputs)
        slots = np.arange(outputs, dtype="int64")
        epilogue, leaves = self._epilogue(group, result, slots)
        task = planes_task(convolution, source.view, result, epilogue)
        spec = candidates(task, self.machine)[0]
        layer = PlacedLayer(convolution, source.slots, spec, task)
        step = Placed(node, spec, (source.value,), (result.size,), leaves=leaves, layer=layer)
        return Image(self.images.call(step), result, slots)

    def _depthwise(self, group: Group, node: Node, convolution: Convolution) -> Image:
        source = self.images.blocks(node.inputs[0])
        view = source.view
        result = self.images.blocks_view(group.sink, view.blocks, view.lanes)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        spec = depthwise_spec(convolution, view, result, epilogue, self.machine)
        layer = PlacedLayer(convolution, source.slots, spec)
        step = Placed(node, spec, (source.value,), (result.size,), leaves=leaves, layer=layer, dtype=result.dtype)
        return Image(self.images.call(step), result, source.slots)

    def _transposed(self, group: Group) -> Image:
        node = _anchor(group)
        transposed = node.detail_as(Transposed)
        outputs, inputs = transposed.weights.kernel.shape[:2]
        depthwise = transposed.groups > 1 and inputs == 1 and outputs == transposed.groups
        source = self.images.blocks(node.inputs[0]) if depthwise else self.images.dense(node.inputs[0])
        slots = source.slots if depthwise else np.arange(outputs, dtype="int64")
        lanes = self.machine.lanes(node.dtype)
        blocks = source.view.blocks if depthwise else -(-outputs // lanes)
        result = self.images.blocks_view(group.sink, blocks, lanes)
        epilogue, leaves = self._epilogue(group, result, slots)
        spec = interleaved_spec(phases_of(node), transposed, source, result, epilogue, self.machine)
        layer = PlacedLayer(transposed, source.slots, spec)
        step = Placed(node, spec, (source.value,), (result.size,), leaves=leaves, layer=layer, dtype=result.dtype)
        return Image(self.images.call(step), result, slots)

    def _normalize(self, group: Group) -> Image:
        node = _anchor(group)
        normal = node.detail_as(Normalization)
        source = self.images.blocks(node.inputs[0])
        result = self.images.like(source, group.sink)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        channels = len(source.slots)
        tabled = not np.array_equal(source.slots, np.arange(channels))
        spec = NormalizeSpec(source.view, result, channels, normal.groups, normal.epsilon, tabled, epilogue)
        vectors = [
            pack_vector(numbers, source.slots, source.view, "float32") for numbers in (normal.scale, normal.shift)
        ]
        tables = (*vectors, *([source.slots.astype("int32")] if tabled else []))
        step = Placed(node, spec, (source.value,), (result.size,), tables, leaves, dtype=result.dtype)
        return Image(self.images.call(step), result, source.slots)

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
                together=self._together(result, epilogue, [source]),
            )

        return self._of_one(group, spec)

    def _mean(self, group: Group) -> Image:
        return self._of_one(
            group,
            lambda source, result, epilogue: MeanSpec(source, result, epilogue, self._together(source)),
        )

    def _frame(self, group: Group) -> Image:
        frame = _anchor(group).detail_as(Frame)
        return self._of_one(
            group,
            lambda source, result, epilogue: FrameSpec(
                source, result, frame.margins[:2], frame.step, frame.fill, epilogue
            ),
        )

    def _of_one(
        self, group: Group, make: Callable[[View, View, Epilogue], Any], tables: tuple[Array, ...] = ()
    ) -> Image:
        """What computes each channel from the same channel of one image."""
        node = _anchor(group)
        source = self._read(group, node.inputs[0])
        result = self.images.like(source, group.sink)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        spec = make(source.view, result, epilogue)
        step = Placed(node, spec, (source.value,), (result.size,), tables, leaves, dtype=result.dtype)
        return Image(self.images.call(step), result, source.slots)

    def _table(self, group: Group) -> Image:
        """Of all channels, or of each: then tables lie in the order of slots."""
        node = _anchor(group)
        table = node.detail_as(np.ndarray)
        if table.ndim > 1:
            source = self._read(group, node.inputs[0])
            whole = np.zeros((source.view.blocks * source.view.lanes, table.shape[1]), table.dtype)
            whole[source.slots] = table
            table = whole.reshape(-1)

        def spec(source: View, result: View, epilogue: Epilogue) -> TableSpec:
            return TableSpec(source, result, epilogue, str(table.dtype), len(table))

        return self._of_one(group, spec, (table,))

    def _concat(self, group: Group) -> Image:
        node = _anchor(group)
        parts = [self._read(group, part) for part in node.inputs]
        lanes = parts[0].view.lanes
        firsts = np.cumsum([0] + [part.view.blocks for part in parts])
        slots = np.concatenate([part.slots + first * lanes for part, first in zip(parts, firsts, strict=False)])
        blocks = int(firsts[-1])
        result = self.images.like(Image(node, replace(parts[0].view, blocks=blocks), slots), group.sink)
        if Image(node, result, slots).wasteful:
            joined = self.images.rearranged(node, parts, self.images.halo(group.sink))
            return self._elementwise(group, joined) if group.scalars else joined
        epilogue, leaves = self._epilogue(group, result, slots)
        views = tuple(part.view for part in parts)
        spec = ConcatSpec(views, result, epilogue, self._together(result, epilogue, views))
        values = tuple(part.value for part in parts)
        step = Placed(node, spec, values, (result.size,), leaves=leaves, dtype=result.dtype)
        return Image(self.images.call(step), result, slots)

    def _elementwise(self, group: Group, anchor: Image | None = None) -> Image:
        """Elementwise nodes alone, or after an `anchor` that was computed before."""
        leading = anchor or self._read(group, _leading(group))
        result = self.images.like(leading, group.sink)
        epilogue, leaves = self._epilogue(group, result, leading.slots, anchor)
        spec = ElementwiseSpec(result, epilogue, self._together(result, epilogue))
        step = Placed(group.sink, spec, (), (result.size,), leaves=leaves)
        return Image(self.images.call(step), result, leading.slots)

    def _together(self, view: View, epilogue: Epilogue | None = None, read: Sequence[View] = ()) -> int:
        """How many pixels of a row are computed together: a vector of them in planes; of codes as many as fill a vector of
        bytes, since loads of four bytes take an instruction each, and LLVM lets them wait for all stores before.
        """
        if is_planes(view) and self.machine.lanes() > 1:
            most = min(self.machine.lanes(view.dtype), view.width)
            return 1 << (most.bit_length() - 1)
        views = [view, *read, *(epilogue.leaves if epilogue is not None else ())]
        codes = any(one.is_code for one in views) and view.lanes == _CODES_OF_A_WORD and view.width >= _WORDS
        beside = all(one.column == one.lanes == view.lanes for one in (view, *read))
        return _WORDS if codes and beside and epilogue is not None and epilogue.joins else 1

    def _layer_norm(self, node: Node) -> Placed:
        normal = node.detail_as(Normalization)
        spec = RowNormSpec(node.shape, self.machine.lanes(node.dtype), normal.epsilon)
        tables = normal.scale.astype("float32"), normal.shift.astype("float32")
        return self.images.call(Placed(node, spec, (self.images.plain(node.inputs[0]),), node.shape, tables))

    def _product(self, node: Node) -> Placed:
        left, right = node.inputs
        rows, columns = node.shape[-2:]
        lanes = min(self.machine.lanes(node.dtype), 1 << (columns.bit_length() - 1))
        tile = choose_tile(self.machine, columns // lanes, 1, rows, left.shape[-1])
        spec = ProductSpec(left.shape, right.shape, lanes, tile.columns, tile.blocks, node.dtype)
        sources = (self.images.plain(left), self.images.plain(right))
        return self.images.call(Placed(node, spec, sources, node.shape))

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
            if node.op == "constant" and node.detail_as(np.ndarray).size == 1 and node.dtype != "int32":
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
        # Codes that others are made of are int32 in registers, and all else on the way is float32.
        kind = DTYPES["float32" if DTYPES[result.dtype].is_code else result.dtype]
        dtype = kind.partial if kind.partial and rounds_once(step.function for step in steps) else kind.accumulator
        dot = self.machine.dot if any(step.function in CODES for step in steps) else ""
        return Epilogue(tuple(steps), tuple(views), self.machine.keeps_nans, dtype, dot), tuple(values)

    def _leaf(self, node: Node, result: View, slots: Slots) -> tuple[View, Value]:
        """How an epilogue of `result` reads `node`: pixel by pixel, or one vector of channels for all
        pixels.
        """
        if node.op == "constant" and node.detail_as(np.ndarray).size != len(slots):
            batch, _, height, width = node.image_shape
            view = dense_view(batch, result.blocks, height, width, result.lanes, 0, node.dtype)
            packed = pack_image(node.detail_as(np.ndarray).reshape(node.image_shape), slots, view, node.dtype)
            return (view if batch > 1 else replace(view, image=0)), packed
        if node.op == "constant":
            packed = pack_vector(node.detail_as(np.ndarray).reshape(-1), slots, result, node.dtype)
            view = dense_view(1, result.blocks, 1, 1, result.lanes, 0, str(packed.dtype))
            return replace(view, image=0, row=0, column=0), packed
        image = self.images.planes(node) if is_planes(result) and self.machine.lanes() > 1 else self.images.blocks(node)
        if image.view.blocks != result.blocks or not np.array_equal(image.slots, slots):
            image = self.images.rearranged(node, [image], 0, slots, result.blocks)
        view = image.view
        if (view.height, view.width) != (result.height, result.width):
            view = replace(view, row=0, column=0)
        return view, image.value


def _anchor(group: Group) -> Node:
    if group.anchor is None:
        raise AssertionError(f"group of '{group.sink.name}' has no anchor")
    return group.anchor


def _leading(group: Group) -> Node:
    """The input of an elementwise group whose channel slots the result takes."""
    members = {*group.scalars, group.anchor}
    outside = [source for node in group.scalars for source in node.inputs if source not in members]
    return next(n for n in outside if n.op != "constant" and n.shape == group.sink.shape)
