"""Where the values of a graph lie, and the steps that lay one out anew for who reads it in another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..dtypes import DTYPES
from ..graph.nodes import Convolution, Graph, Node
from ..graph.phases import margins_of
from ..kernels.image import Slots, View
from ..kernels.outside import left_out
from ..kernels.planes import LINE, is_planes, plane_view
from ..kernels.relayout import PackSpec, RearrangeSpec, UnpackSpec
from ..kernels.tiles import Machine
from ..kernels.transposing import TransposeSpec
from ..kernels.words import DOT
from .layout import Image, as_blocks, as_planes, channels_last_view, dense_view, one_pixel, thin
from .steps import Kept, Placed, Value

__all__ = ["Images"]


class Images:
    """Values as images in blocks or in planes, or plain, each converted once for all who read it so."""

    def __init__(self, graph: Graph, machine: Machine) -> None:
        self.machine = machine
        self.steps: list[Placed | Kept] = []
        self._native: dict[Node, Image] = {}
        self._blocks: dict[Node, Image] = {}
        self._planes: dict[Node, Image] = {}
        self._compact: dict[Node, Image] = {}
        self._plains: dict[Node, Value] = {}
        self._halos, self._borders, self._framed = _halos(graph), _borders(graph), _padded_above(graph)
        self._upright = _padded_above(graph, but_skipped=True)
        self._gaps = _gaps(graph, self._halos)
        self._channels_last = _channels_last(graph) if machine.dot == DOT else frozenset[Node]()

    def call(self, placed: Placed) -> Placed:
        """A further step."""
        self.steps.append(placed)
        return placed

    def keep(self, node: Node) -> None:
        """`node` as an operator of TVM's."""
        step = Kept(node, tuple(self.plain(source) for source in node.inputs))
        self.steps.append(step)
        self._plains[node] = step

    def put(self, node: Node, image: Image) -> None:
        """What a step computed."""
        self._native[node] = image

    def put_plain(self, node: Node, value: Value) -> None:
        """The same with its logical shape."""
        self._plains[node] = value

    def __contains__(self, node: Node) -> bool:
        """Whether `node` lies somewhere as an image."""
        return node in self._native

    def halo(self, node: Node) -> int:
        """The border of zeros that who reads `node` needs."""
        return self._halos.get(node, 0)

    def flat(self, node: Node) -> bool:
        """Whether that is left and right only."""
        return self.halo(node) > 0 and node not in self._upright

    def blocks_view(self, node: Node, blocks: int, lanes: int) -> View:
        """Where the value of `node` may lie in blocks."""
        view = self._view(node, blocks, lanes, self.halo(node))
        return replace(view, border=self._borders[node]) if view.halo and node in self._borders else view

    def planes_view(self, node: Node, channels: int) -> View:
        """Where it may lie in planes; all images of one width have rows as far apart."""
        batch, _, height, width = node.image_shape
        pitch = _pitch(height, width, self._gaps.get(width, 0), self.machine.lanes(node.dtype))
        flat = self.halo(node) > 0 and node not in self._framed
        return plane_view(batch, channels, height, width, self.halo(node), pitch, node.dtype, flat)

    def like(self, source: Image, node: Node) -> View:
        """Where `node` may lie channel by channel as `source` does."""
        view = source.view
        if not is_planes(view) or self.machine.lanes() == 1:
            return self.blocks_view(node, view.blocks, view.lanes)
        if node.image_shape[2:] == (1, 1) and not self.halo(node):
            lanes = self.machine.lanes(node.dtype)
            return as_planes(self.blocks_view(node, -(-view.blocks // lanes), lanes))
        return self.planes_view(node, view.blocks)

    def native(self, node: Node) -> Image:
        """As it was computed; a plain value in blocks."""
        return self._native[node] if node in self._native else self.blocks(node)

    def blocks(self, node: Node) -> Image:
        """In blocks."""
        if node not in self._native:
            self._native[node] = self._packed(node, self.machine.lanes(node.dtype))
        image = self._native[node]
        if self.machine.lanes() == 1 or not is_planes(image.view):
            return image
        if node not in self._blocks:
            self._blocks[node] = self._in_blocks(node, image)
        return self._blocks[node]

    def planes(self, node: Node) -> Image:
        """In planes."""
        image = self._native.get(node)
        if image is not None and is_planes(image.view):
            return image
        if node not in self._planes:
            self._planes[node] = self._in_planes(node, image)
        return self._planes[node]

    def thin(self, node: Node) -> Image | None:
        """With a lane for each plane, for plain values of few channels."""
        if node in self._native or node.image_shape[1] > thin(self.machine) or node.image_shape[2:] == (1, 1):
            return None
        if node not in self._compact:
            self._compact[node] = self._packed(node, 1)
        return self._compact[node]

    def dense(self, node: Node) -> Image:
        """In blocks without wasteful gaps, for readers whose time grows with the gaps."""
        image = self.blocks(node)
        if not image.wasteful or image.view.height * image.view.width == 1:
            return image
        if node not in self._compact:
            self._compact[node] = self.rearranged(node, [image], image.view.halo)
        return self._compact[node]

    def plain(self, node: Node) -> Value:
        """With its logical shape, rows of pixels in order."""
        if node.op in ("input", "constant"):
            return node
        if node not in self._plains:
            image = self._native[node]
            channels = len(image.slots)
            tabled = not np.array_equal(image.slots, np.arange(channels))
            spec = UnpackSpec(image.view, channels, node.shape, tabled)
            tables = (image.slots.astype("int32"),) if tabled else ()
            self._plains[node] = self.call(Placed(node, spec, (image.value,), node.shape, tables))
        return self._plains[node]

    def rearranged(
        self, node: Node, images: Sequence[Image], halo: int, slots: Slots | None = None, blocks: int | None = None
    ) -> Image:
        """All channels of `images` copied to `slots` of one image; by default one after the other."""
        view, counts = images[0].view, tuple(len(image.slots) for image in images)
        if slots is None:
            slots = np.arange(sum(counts), dtype="int64")
        blocks = blocks or -(-len(slots) // view.lanes)
        result = self._view(node, blocks, view.lanes, halo)
        result = replace(result, border=self._borders.get(node, 0) if halo else 0)
        if view.lanes < self.machine.lanes(view.dtype):
            flat = halo > 0 and node not in self._framed
            result = plane_view(view.batch, blocks, view.height, view.width, halo, view.row, view.dtype, flat)
        parts = np.split(slots, np.cumsum(counts)[:-1])
        tables = tuple(
            np.stack([image.slots, part], axis=1).astype("int32").reshape(-1)
            for image, part in zip(images, parts, strict=True)
        )
        spec = RearrangeSpec(tuple(image.view for image in images), counts, result)
        step = Placed(node, spec, tuple(image.value for image in images), (result.size,), tables)
        return Image(self.call(step), result, slots)

    def _view(self, node: Node, blocks: int, lanes: int, halo: int) -> View:
        batch, _, height, width = node.image_shape
        flat = halo > 0 and self.flat(node)
        if node in self._channels_last:
            return channels_last_view(batch, blocks, height, width, halo, node.dtype, flat)
        return dense_view(batch, blocks, height, width, lanes, halo, node.dtype, flat)

    def _packed(self, node: Node, lanes: int) -> Image:
        channels = node.image_shape[1]
        return self._pack(node, self.blocks_view(node, -(-channels // lanes), lanes))

    def _pack(self, node: Node, view: View) -> Image:
        channels = node.image_shape[1]
        step = Placed(node, PackSpec(channels, node.shape, view), (self.plain(node),), (view.size,))
        return Image(self.call(step), view, np.arange(channels, dtype="int64"))

    def _in_planes(self, node: Node, image: Image | None) -> Image:
        if image is None:
            return self._pack(node, self.planes_view(node, node.image_shape[1]))
        if one_pixel(image.view):
            return Image(image.value, as_planes(image.view), image.slots)
        used = int(image.slots.max()) + 1
        return self._transposed(node, image, self.planes_view(node, used), used)

    def _in_blocks(self, node: Node, image: Image) -> Image:
        lanes = self.machine.lanes(node.dtype)
        if one_pixel(image.view):
            return Image(image.value, as_blocks(image.view, lanes), image.slots)
        used = int(image.slots.max()) + 1
        return self._transposed(node, image, self.blocks_view(node, -(-used // lanes), lanes), used)

    def _transposed(self, node: Node, image: Image, view: View, channels: int) -> Image:
        step = Placed(node, TransposeSpec(image.view, view, channels), (image.value,), (view.size,))
        return Image(self.call(step), view, image.slots)


def _halos(graph: Graph) -> dict[Node, int]:
    """The zero border every value needs, for the convolutions that read it with padding."""
    halos: dict[Node, int] = {}
    for node in reversed(graph.nodes):
        if any(beyond := _beyond(node)):
            source = node.inputs[0]
            halos[source] = max(halos.get(source, 0), *beyond)
        elif node.op == "reindex" and node in halos:
            halos[node.inputs[0]] = max(halos.get(node.inputs[0], 0), halos[node])
    return halos


def _beyond(node: Node) -> tuple[int, int, int, int]:
    """How far a layer reads beyond its input: above, left, below and right; less than nothing where it stays within."""
    if node.op == "transposed":
        return margins_of(node)
    return node.detail_as(Convolution).padding if node.op == "convolution" else (0, 0, 0, 0)


def _skips(node: Node) -> bool:
    """Whether a layer leaves rows out that lie outside of its input."""
    source = node.inputs[0]
    area = source.image_shape[2:]
    return node.op == "convolution" and left_out(node.detail_as(Convolution), *area, source.dtype)[0]


def _padded_above(graph: Graph, but_skipped: bool = False) -> set[Node]:
    """Values that a layer reads with padding above or below, `but_skipped` those of which it leaves these rows out."""
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        padded = any(_beyond(node)[::2]) and not (but_skipped and _skips(node))
        if padded or (node.op == "reindex" and node in found):
            found.add(node.inputs[0])
    return found


def _borders(graph: Graph) -> dict[Node, int]:
    """The code that padding is, for the convolutions that read a value with it."""
    borders: dict[Node, int] = {}
    for node in reversed(graph.nodes):
        if node.op == "convolution" and any(node.detail_as(Convolution).padding) and node.detail_as(Convolution).zero:
            borders[node.inputs[0]] = node.detail_as(Convolution).zero
        elif node.op == "reindex" and node in borders:
            borders[node.inputs[0]] = borders[node]
    return borders


def _channels_last(graph: Graph) -> frozenset[Node]:
    """Values of codes whose channels had better lie side by side: those of several pixels that a convolution reads which adds
    products over channels. What is read by none lies in planes.
    """
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        sums = node.op == "convolution" and node.detail_as(Convolution).groups == 1
        if sums or (node.op == "reindex" and node in found):
            found.add(node.inputs[0])
    return frozenset(node for node in found if DTYPES[node.dtype].is_code and node.image_shape[2:] != (1, 1))


def _gaps(graph: Graph, halos: Mapping[Node, int]) -> dict[int, int]:
    """What rows of planes of each width need between them: the widest border, and the rest of a window that reads a phase."""
    gaps: dict[int, int] = {}
    for node, halo in halos.items():
        gaps[node.image_shape[3]] = max(gaps.get(node.image_shape[3], 0), halo)
    for node in graph.nodes:
        if node.op == "convolution":
            convolution, width = node.detail_as(Convolution), node.image_shape[3]
            window = (convolution.weights.kernel.shape[3] - 1) * convolution.dilation[1]
            if convolution.stride != (1, 1) or node.inputs[0].image_shape[3] != width:
                gaps[width] = max(gaps.get(width, 0), window // convolution.stride[1])
    return gaps


def _pitch(height: int, width: int, gap: int, lanes: int) -> int:
    """From row to row: whole vectors if that makes them no more, since fewer of them then lie in two cache lines."""
    rounded = -(-(width + gap) // lanes) * lanes

    def vectors(pitch: int) -> int:
        return -(-((height - 1) * pitch + width) // lanes)

    return rounded if lanes <= LINE and vectors(rounded) <= vectors(width + gap) else width + gap
