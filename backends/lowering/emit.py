"""Turns groups of the graph into Relax calls of our kernels, choosing layouts and tiles on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import IRModule, relax, tirx

from ..graph.fusion import Group, group_nodes
from ..graph.nodes import Convolution, Foreign, Graph, Node, Reference
from ..kernels.alternatives import Candidate, fitted
from ..kernels.convolution import ConvolutionSpec
from ..kernels.depthwise import DepthwiseSpec, depthwise_columns, depthwise_kernel, weights_stay
from ..kernels.elementwise import ConcatSpec, ElementwiseSpec, concat_kernel, elementwise_kernel
from ..kernels.epilogue import Epilogue, Operand, Step
from ..kernels.frame import FrameSpec, frame_kernel
from ..kernels.image import View
from ..kernels.matrices import ProductSpec, SoftmaxSpec, product_kernel, softmax_kernel
from ..kernels.pooling import MeanSpec, PoolSpec, mean_kernel, pool_kernel
from ..kernels.relayout import PackSpec, RearrangeSpec, UnpackSpec, pack_kernel, rearrange_kernel, unpack_kernel
from ..kernels.tiles import Machine, Tile, choose_tile
from ..kernels.winograd import WinogradSpec
from .layout import (
    Image,
    Slots,
    dense_view,
    flattened,
    in_a_row,
    input_bands,
    pack_convolution,
    pack_depthwise,
    pack_vector,
    pack_winograd,
    selected,
    thin,
)

__all__ = ["Choose", "Emitter", "emit_module"]

Choose = Callable[[ConvolutionSpec], Candidate]
"""How a convolution is computed, given its default specification."""


def emit_module(graph: Graph, machine: Machine, choose: Choose = Candidate) -> IRModule:
    """A module whose ``main`` calls scheduled kernels, and TVM's operators where the graph has foreign
    nodes.
    """
    return Emitter(graph, machine, choose).module()


class Emitter:
    """Emits one graph. Values are kept as images (blocked) or as plain Relax variables, and converted on
    demand.
    """

    def __init__(self, graph: Graph, machine: Machine, choose: Choose) -> None:
        self.graph = graph
        self.machine = machine
        self.choose = choose
        self.builder = relax.BlockBuilder()
        self.images: dict[Node, Image] = {}
        self.compact: dict[Node, Image] = {}
        self.plains: dict[Node, Any] = {}
        self.kernels: dict[Any, Any] = {}
        self.calls: Counter[Any] = Counter()
        self.anchors: dict[Any, Node] = {}
        self.halos = _halos(graph)

    def module(self) -> IRModule:
        parameters = [
            relax.Var(node.name, relax.TensorType(list(node.shape), node.dtype)) for node in self.graph.inputs
        ]
        self.plains.update(zip(self.graph.inputs, parameters, strict=True))
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                for group in group_nodes(self.graph):
                    self._group(group)
                results = [self._plain(node) for node in self.graph.outputs]
                value = relax.Tuple(results) if self.graph.returns_tuple else results[0]
                output = self.builder.emit_output(value)
            self.builder.emit_func_output(output)
        return self.builder.get()

    def _group(self, group: Group) -> None:
        node = group.anchor or group.sink
        if node.op in ("input", "constant"):
            return
        if node.op == "foreign":
            self._foreign(node)
        elif node.op == "item":
            self.plains[node] = self.builder.emit(relax.TupleGetItem(self._plain(node.inputs[0]), node.detail))
        elif node.op == "product":
            self._product(node)
        elif node.op == "softmax":
            spec = SoftmaxSpec(node.shape, self.machine.lanes, self.machine.keeps_nans)
            plain = self._plain(node.inputs[0])
            self.plains[node] = self._call("softmax", softmax_kernel, spec, [plain], node.shape)
        elif node.op == "reindex":
            source = np.array(node.detail.source, dtype="int64")
            self.images[node] = selected(self._image(node.inputs[0]), source)
        elif node.op == "reshape" or (node.op == "flatten" and node.inputs[0] not in self.images):
            self.plains[node] = self.builder.emit(relax.op.reshape(self._plain(node.inputs[0]), node.shape))
        elif node.op == "flatten":
            self.images[node] = flattened(self._image(node.inputs[0]))
        else:
            lower: dict[str, Callable[[Group], Image]] = {
                "convolution": self._convolution,
                "pool": self._pool,
                "mean": self._mean,
                "concat": self._concat,
                "frame": self._frame,
                "scalar": self._elementwise,
            }
            self.images[group.sink] = lower[node.op](group)

    def _convolution(self, group: Group) -> Image:
        node = _anchor(group)
        convolution: Convolution = node.detail
        outputs, inputs = convolution.weights.kernel.shape[:2]
        if convolution.groups > 1 and inputs == 1 and outputs == convolution.groups:
            return self._depthwise(group, node, convolution)
        source = self._thin_image(node.inputs[0]) if convolution.groups == 1 else None
        source = source or self._dense_image(node.inputs[0])
        batch, _, height, width = node.image_shape
        lanes = self.machine.lanes
        blocks = -(-outputs // lanes)
        result = dense_view(batch, blocks, height, width, lanes, self.halos.get(group.sink, 0))
        slots = np.arange(outputs, dtype="int64")
        epilogue, leaves = self._epilogue(group, result, slots)
        spec, starts = self._convolution_spec(convolution, source, result, epilogue)
        candidate = Candidate(spec) if spec.banded else self.choose(spec)
        arguments = [source.variable, *self._weights(candidate.spec, convolution, source.slots, starts)]
        if starts is not None:
            arguments.append(relax.const(starts.astype("int32")))
        workspace = candidate.spec.workspace if isinstance(candidate.spec, WinogradSpec) else ()
        self.anchors[candidate.family, candidate] = node
        variable = self._call(candidate.family, _function, candidate, [*arguments, *leaves], (result.size,), workspace)
        return Image(variable, result, slots)

    def _weights(
        self, spec: ConvolutionSpec | WinogradSpec, convolution: Convolution, slots: Slots, starts: Slots | None
    ) -> list[Any]:
        """Weights and bias, packed for `spec`."""
        if isinstance(spec, WinogradSpec):
            packed = pack_winograd(spec, convolution.weights, slots)
        else:
            packed = pack_convolution(spec, convolution.weights, convolution.groups, slots, starts)
        return [relax.const(array) for array in packed]

    def _convolution_spec(
        self, convolution: Convolution, source: Image, result: View, epilogue: Epilogue
    ) -> tuple[ConvolutionSpec, Slots | None]:
        """The specification, pixels laid in a row where that is possible, and each tile's first input
        block.
        """
        outputs, inputs, *window = convolution.weights.kernel.shape
        view, rows = source.view, result
        pointwise = tuple(window) == convolution.stride == (1, 1) and not any(convolution.padding)
        if pointwise and not result.halo:
            pixels = result.height * result.width > 1  # Else the batch becomes the row, of gates too.
            gated = [leaf if pixels and leaf.repeats else in_a_row(leaf) for leaf in epilogue.leaves]
            flat = [in_a_row(view), in_a_row(result), *gated]
            if all(v is not None for v in flat):
                view, rows, *leaves = (v for v in flat if v is not None)
                epilogue = replace(epilogue, leaves=tuple(leaves))
        steps = inputs * window[0] * window[1]
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
        )
        spec = fitted(spec, self.machine, steps)
        if convolution.groups == 1:
            return spec, None
        tile = spec.tile
        lanes = result.lanes
        firsts = [min(t * tile.blocks, result.blocks - tile.blocks) * lanes for t in range(spec.tiles)]
        ranges = [(first, min(outputs, first + tile.blocks * lanes)) for first in firsts]
        bands = input_bands(ranges, convolution.groups, (outputs // convolution.groups, inputs), source)
        width = int((bands[:, 1] - bands[:, 0]).max()) + 1
        starts = np.minimum(bands[:, 0], view.blocks - width)
        return replace(spec, blocks=width, rest=0, banded=True), starts

    def _depthwise(self, group: Group, node: Node, convolution: Convolution) -> Image:
        source = self._image(node.inputs[0])
        batch, _, height, width = node.image_shape
        view = source.view
        result = dense_view(batch, view.blocks, height, width, view.lanes, self.halos.get(group.sink, 0))
        epilogue, leaves = self._epilogue(group, result, source.slots)
        window = convolution.weights.kernel.shape[2:]
        taps = window[0] * window[1]
        columns = depthwise_columns(self.machine, width, convolution.stride[1], taps)
        spec = DepthwiseSpec(
            source=view,
            result=result,
            kernel=(window[0], window[1]),
            stride=convolution.stride,
            dilation=convolution.dilation,
            padding=(convolution.padding[0], convolution.padding[1]),
            columns=columns,
            epilogue=epilogue,
            weights_stay=weights_stay(self.machine, columns, taps),
        )
        weights, bias = pack_depthwise(convolution.weights, source)
        arguments = [source.variable, relax.const(weights), relax.const(bias), *leaves]
        self.anchors["depthwise", spec] = node
        return Image(self._call("depthwise", depthwise_kernel, spec, arguments, (result.size,)), result, source.slots)

    def _pool(self, group: Group) -> Image:
        node = _anchor(group)
        pool, source = node.detail, self._image(node.inputs[0])
        result = self._like(source, group.sink)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        spec = PoolSpec(
            kind=pool.kind,
            source=source.view,
            result=result,
            window=pool.window,
            stride=pool.stride,
            padding=pool.padding[:2],
            counts_padding=pool.counts_padding,
            epilogue=epilogue,
        )
        variable = self._call("pool", pool_kernel, spec, [source.variable, *leaves], (result.size,))
        return Image(variable, result, source.slots)

    def _mean(self, group: Group) -> Image:
        source = self._image(_anchor(group).inputs[0])
        result = self._like(source, group.sink)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        spec = MeanSpec(source.view, result, epilogue)
        variable = self._call("mean", mean_kernel, spec, [source.variable, *leaves], (result.size,))
        return Image(variable, result, source.slots)

    def _frame(self, group: Group) -> Image:
        node = _anchor(group)
        frame, source = node.detail, self._image(node.inputs[0])
        result = self._like(source, group.sink)
        epilogue, leaves = self._epilogue(group, result, source.slots)
        spec = FrameSpec(source.view, result, frame.margins[:2], frame.step, frame.fill, epilogue)
        variable = self._call("frame", frame_kernel, spec, [source.variable, *leaves], (result.size,))
        return Image(variable, result, source.slots)

    def _concat(self, group: Group) -> Image:
        parts = [self._image(part) for part in _anchor(group).inputs]
        lanes = self.machine.lanes
        firsts = np.cumsum([0] + [part.view.blocks for part in parts])
        slots = np.concatenate([part.slots + first * lanes for part, first in zip(parts, firsts, strict=False)])
        batch, _, height, width = group.sink.image_shape
        result = dense_view(batch, int(firsts[-1]), height, width, lanes, self.halos.get(group.sink, 0))
        if Image(None, result, slots).wasteful:
            joined = self._rearranged(parts, self.halos.get(group.sink, 0))
            return self._elementwise(group, joined) if group.scalars else joined
        epilogue, leaves = self._epilogue(group, result, slots)
        spec = ConcatSpec(tuple(part.view for part in parts), result, epilogue)
        variables = [part.variable for part in parts]
        variable = self._call("concat", concat_kernel, spec, [*variables, *leaves], (result.size,))
        return Image(variable, result, slots)

    def _elementwise(self, group: Group, anchor: Image | None = None) -> Image:
        """Elementwise nodes alone, or after an `anchor` that was computed before."""
        leading = anchor or self._image(_leading(group))
        result = self._like(leading, group.sink)
        epilogue, leaves = self._epilogue(group, result, leading.slots, anchor)
        spec = ElementwiseSpec(result, epilogue)
        return Image(self._call("elementwise", elementwise_kernel, spec, leaves, (result.size,)), result, leading.slots)

    def _product(self, node: Node) -> None:
        left, right = node.inputs
        rows, columns = node.shape[-2:]
        lanes = min(self.machine.lanes, 1 << (columns.bit_length() - 1))
        tile = choose_tile(self.machine, columns // lanes, 1, rows, left.shape[-1])
        spec = ProductSpec(left.shape, right.shape, lanes, tile.columns, tile.blocks)
        arguments = [self._plain(left), self._plain(right)]
        self.plains[node] = self._call("product", product_kernel, spec, arguments, node.shape)

    def _foreign(self, node: Node) -> None:
        foreign: Foreign = node.detail
        arguments = [self._expression(argument, node) for argument in foreign.arguments]
        call = relax.Call(foreign.call.op, arguments, foreign.call.attrs, foreign.call.ty_args)
        self.plains[node] = self.builder.emit(call)

    def _expression(self, argument: Any, node: Node) -> Any:
        if isinstance(argument, tuple):
            return relax.Tuple([self._expression(field, node) for field in argument])
        if isinstance(argument, tirx.PrimFunc):
            return self.builder.add_func(argument, node.name)
        return self._plain(node.inputs[argument.index]) if isinstance(argument, Reference) else argument

    def _epilogue(
        self, group: Group, result: View, slots: Slots, anchor: Image | None = None
    ) -> tuple[Epilogue, list[Any]]:
        """The steps of the group's elementwise nodes, and the variables of the images they read."""
        steps: list[Step] = []
        position = {node: Operand("step", i) for i, node in enumerate(group.scalars)}
        leaves: dict[Node, int] = {}
        views: list[View] = []
        variables: list[Any] = []

        def operand(node: Node) -> Operand:
            if node in position:
                return position[node]
            if node is group.anchor and anchor is None:
                return Operand("anchor")
            if node.op == "constant" and node.detail.size == 1:
                return Operand("number", value=float(node.detail.reshape(())))
            if node not in leaves:
                leaves[node] = len(views)
                view, variable = (
                    (anchor.view, anchor.variable)
                    if anchor is not None and node is group.anchor
                    else self._leaf(node, result, slots)
                )
                views.append(view)
                variables.append(variable)
            return Operand("leaf", leaves[node])

        for node in group.scalars:
            operands = tuple(operand(source) for source in node.inputs)
            steps.append(Step(node.detail.function, node.detail.parameters, operands))
        return Epilogue(tuple(steps), tuple(views), self.machine.keeps_nans), variables

    def _leaf(self, node: Node, result: View, slots: Slots) -> tuple[View, Any]:
        """How an epilogue of `result` reads `node`: pixel by pixel, or one vector of channels for all
        pixels.
        """
        if node.op == "constant":
            packed = pack_vector(node.detail.reshape(-1), slots, result.blocks, result.lanes)
            view = dense_view(1, result.blocks, 1, 1, result.lanes, 0)
            return replace(view, image=0, row=0, column=0), relax.const(packed)
        image = self._image(node)
        if image.view.blocks != result.blocks or not np.array_equal(image.slots, slots):
            image = self._rearranged([image], 0, slots, result.blocks)
        view = image.view
        if (view.height, view.width) != (result.height, result.width):
            view = replace(view, row=0, column=0)
        return view, image.variable

    def _like(self, source: Image, sink: Node) -> View:
        """An image for `sink` with the blocks of `source`."""
        batch, _, height, width = sink.image_shape
        return dense_view(batch, source.view.blocks, height, width, source.view.lanes, self.halos.get(sink, 0))

    def _image(self, node: Node) -> Image:
        """`node` in blocks, packed from its plain value where it has only that."""
        if node not in self.images:
            self.images[node] = self._packed(node, self.machine.lanes)
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
            self.compact[node] = self._rearranged([image], image.view.halo)
        return self.compact[node]

    def _packed(self, node: Node, lanes: int) -> Image:
        batch, channels, height, width = node.image_shape
        view = dense_view(batch, -(-channels // lanes), height, width, lanes, self.halos.get(node, 0))
        spec = PackSpec(channels, node.shape, view)
        variable = self._call("pack", pack_kernel, spec, [self._plain(node)], (view.size,))
        return Image(variable, view, np.arange(channels, dtype="int64"))

    def _plain(self, node: Node) -> Any:
        """`node` with its logical shape, rows of pixels in order."""
        if node in self.plains:
            return self.plains[node]
        if node.op == "constant":
            self.plains[node] = relax.const(node.detail.astype(node.dtype), node.dtype)
            return self.plains[node]
        image = self.images[node]
        channels = len(image.slots)
        tabled = not np.array_equal(image.slots, np.arange(channels))
        spec = UnpackSpec(image.view, channels, node.shape, tabled)
        tables = [relax.const(image.slots.astype("int32"))] if tabled else []
        self.plains[node] = self._call("unpack", unpack_kernel, spec, [image.variable, *tables], node.shape)
        return self.plains[node]

    def _rearranged(
        self, images: Sequence[Image], halo: int, slots: Slots | None = None, blocks: int | None = None
    ) -> Image:
        """All channels of `images` copied to `slots` of one image; by default one after the other."""
        lanes = self.machine.lanes
        counts = tuple(len(image.slots) for image in images)
        if slots is None:
            slots = np.arange(sum(counts), dtype="int64")
        view = images[0].view
        blocks = blocks or -(-len(slots) // lanes)
        result = dense_view(view.batch, blocks, view.height, view.width, lanes, halo)
        parts = np.split(slots, np.cumsum(counts)[:-1])
        tables = [
            relax.const(np.stack([image.slots, part], axis=1).astype("int32").reshape(-1))
            for image, part in zip(images, parts, strict=True)
        ]
        spec = RearrangeSpec(tuple(image.view for image in images), counts, result)
        arguments = [*[image.variable for image in images], *tables]
        return Image(self._call("rearrange", rearrange_kernel, spec, arguments, (result.size,)), result, slots)

    def _call(
        self,
        family: str,
        build: Callable[[Any, str], Any],
        spec: Any,
        arguments: list[Any],
        shape: Sequence[int],
        workspace: Sequence[int] = (),
    ) -> Any:
        """Emits a call of the kernel for `spec`, which is built once however often it occurs.

        A `workspace` is results that nobody reads, so that Relax plans their memory with all the rest.
        """
        key = (family, spec)
        self.calls[key] += 1
        if key not in self.kernels:
            name = f"{family}_{sum(1 for known in self.kernels if known[0] == family)}"
            self.kernels[key] = self.builder.add_func(build(spec, name), name)
        result = relax.TensorType(list(shape), "float32")
        if not workspace:
            return self.builder.emit(relax.call_tir(self.kernels[key], arguments, result))
        results = [result, *(relax.TensorType([size], "float32") for size in workspace)]
        every = self.builder.emit(relax.call_tir(self.kernels[key], arguments, results))
        return self.builder.emit(relax.TupleGetItem(every, 0))


def _function(candidate: Candidate, name: str) -> Any:
    return candidate.function(name)


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
        if node.op == "convolution" and any(node.detail.padding):
            source = node.inputs[0]
            halos[source] = max(halos.get(source, 0), *node.detail.padding)
        elif node.op == "reindex" and node in halos:
            halos[node.inputs[0]] = max(halos.get(node.inputs[0], 0), halos[node])
    return halos
