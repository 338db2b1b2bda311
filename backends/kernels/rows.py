"""Layers of few weights over images in blocks: vectors run along output channels, and only weights that are not zero are read.

That is what layers of one pixel or few want, such as the matrices of a recurrent layer. Channels that are computed together,
one or more vectors of them, have one list of places in the input (`packed_rows`): for each of these one element is spread over
a vector and multiplied by a vector of weights for each vector of channels.

Where a group is not channels that follow each other, or columns are cut into chunks, in which channels have other partners
each, sums wait in memory, channel by channel, until all groups are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Convolution
from . import loops
from .image import Slots, clear_border
from .packed_rows import PackedRows, even_spans, group_rows, pack_rows
from .skipping import SkippingSpec
from .tiles import Machine, streamed_cycles
from .zeros import GroupCount, entries_of

__all__ = ["RowsSpec", "places_in_blocks"]

_LATENCY = 4.0
"""Cycles until a sum can be added to again."""
_LOAD = 0.5
"""Cycles of a load that others do not hide."""
_GROUP = 16.0
"""What starting a list costs, in cycles."""
_WAITS, _WAITS_BY_PIXEL = 3.0, 4.3
"""Cycles of a step in which a core that waits for loads does nothing else, the second for each pixel and, with 1 more for each
vector of channels; a test compares them with the model."""
_ISSUED, _ISSUED_BY_PIXEL, _ISSUED_BY_VECTOR = 7.0, 1.9, 1.5
"""Instructions of a step beside its products, where a core begins so few that they are what it waits for."""
_MOVED = 2.0
"""Cycles of putting a sum where it waits, or adding it there."""


@dataclass(frozen=True, kw_only=True)
class RowsSpec(SkippingSpec):
    """One convolution or linear layer, with everything its code depends on.

    Attributes:
        source: the input in blocks; its halo covers the padding.
        result: the output in blocks of `lanes` channels.
        count: how channels are computed together: as many as some vectors hold.
        columns: pixels of a row in a register tile.
        splits: sums of an output, each of every so many-th product, so that they need not wait for each other.
        parts: of about equally many weights, that cores share.
        index: the machine's, see `tiles.Machine`.
    """

    family: ClassVar[str] = "rows"

    count: GroupCount
    columns: int
    splits: int
    parts: int = 1
    index: str = "int32"

    @property
    def vectors(self) -> int:
        """Vectors of channels that are computed together."""
        return self.count.blocking.height // self.result.lanes

    @property
    def waits(self) -> bool:
        """Whether sums wait in memory."""
        return self.count.chunks > 1 or not self.count.blocking.in_order

    @property
    def workspace(self) -> tuple[int, ...]:
        """The sums that wait: with chunks those of every part by themselves, else each is of one part only."""
        copies = self.parts if self.count.chunks > 1 else 1
        return (copies * self.pixels * self._room,) if self.waits else ()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights and of the places they are for."""
        return self.count.entries * (self.count.blocking.height * self.source.element_bytes + 4)

    @property
    def _room(self) -> int:
        """Channels of the result, unused lanes included."""
        return self.result.blocks * self.result.lanes

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights ``(entries, height)``, bias by output, rows ``(groups, height)`` of groups whose sums wait, the first entry
        of each group, the first group of each part, and places in the input by entry.
        """
        entries = entries_of(convolution)
        packed = pack_rows(entries, group_rows(entries, self.count.blocking))
        weights = self._added(packed) if self.count.chunks > 1 else packed.weights
        bias = np.zeros(self._biases, self.source.dtype)
        bias[: self.outputs] = convolution.weights.bias
        tables = (
            packed.starts,
            even_spans(packed, self.parts),
            places_in_blocks(self, slots)[packed.columns].astype("int32"),
        )
        rows = (packed.rows.reshape(-1),) if self.waits else ()
        return (weights.astype(self.source.dtype).reshape(-1), bias, *rows, *tables)

    def typical(self) -> dict[int, Array]:
        """Tables of lists that are equally long, of places all over the window and the channels."""
        count, random = self.count, np.random.default_rng(0)
        starts = np.arange(count.groups + 1) * count.entries // count.groups
        spans = np.arange(self.parts + 1) * count.groups // self.parts
        every = places_in_blocks(self, np.arange(self.source.blocks * self.source.lanes))
        chosen = random.integers(0, len(every), count.entries)
        order = np.lexsort((chosen, np.searchsorted(starts, np.arange(count.entries), side="right")))
        rows = (np.arange(count.groups * count.blocking.height) % self.outputs,) if self.waits else ()
        tables = (*rows, starts, spans, every[chosen[order]])
        return {place: table.astype("int32") for place, table in enumerate(tables, start=3)}

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: the inner loop's products and loads, and weights from memory."""
        vectors, columns, count = self.vectors, self.columns, self.count
        sums = vectors * columns
        loads = _LOAD * (vectors * machine.vector_bytes / 32 + columns + 1)
        step = max(sums / machine.rate, loads, _LATENCY / self.splits) + 0.25 / self.splits
        if machine.issues:
            step = max(
                step, (sums + _ISSUED_BY_PIXEL * columns + _ISSUED_BY_VECTOR * vectors + _ISSUED) / machine.issues
            )
        if machine.waits_for_loads:
            step += _WAITS + (_WAITS_BY_PIXEL + vectors) * columns
        moved = _MOVED * sums * self.result.lanes if self.waits else 2.0 * sums
        rest = _LATENCY * (self.splits - 1) / 2
        tiles = self.pixels // self.result.width * -(-self.result.width // columns)
        compute = tiles * (count.entries * step + count.groups * (_GROUP + self.splits * sums + rest + moved))
        return streamed_cycles(machine, compute, self.weight_bytes)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, packed arrays..., leaves..., result, workspace...)``."""
        dtype, count = self.source.dtype, self.count
        height = count.blocking.height
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (count.entries * height,), dtype),
            ("bias", (self._biases,), dtype),
            *([("rows", (count.groups * height,), "int32")] if self.waits else []),
            ("starts", (count.groups + 1,), "int32"),
            ("spans", (self.parts + 1,), "int32"),
            ("places", (count.entries,), "int32"),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
            *[(f"workspace{i}", (size,), dtype) for i, size in enumerate(self.workspace)],
        ]
        return loops.kernel(name, arguments, lambda *buffers: _Body(self, buffers).write())

    @property
    def _biases(self) -> int:
        """Numbers of the bias, zeros for outputs that are not there; a last group may have vectors of these alone."""
        return self._room if self.waits else self.count.groups * self.count.blocking.height

    def _added(self, packed: PackedRows) -> Array:
        """Weights whose products are added to sums: of a row that a group has several times, all but the first are zeros."""
        again = np.zeros(packed.rows.shape, bool)
        again[:, 1:] = packed.rows[:, 1:] == packed.rows[:, :-1]
        owner = np.repeat(np.arange(len(packed.rows)), np.diff(packed.starts))
        weights = packed.weights.copy()
        weights[: len(owner)][again[owner]] = 0.0
        return weights


def places_in_blocks(spec: Any, slots: Slots) -> Array:
    """Of each input channel and place of the window of `spec`, where the first output's element is in an image."""
    source, (height, width), (above, left) = spec.source, spec.kernel, spec.padding
    row, column = np.divmod(np.arange(height * width), width)
    found = (row * spec.dilation[0] - above) * source.row + (column * spec.dilation[1] - left) * source.column
    first = source.start + slots // source.lanes * source.block + slots % source.lanes
    places: Array = (first[:, None] + found[None, :]).reshape(-1)
    return places


class _Body:
    """Writes the loops over `buffers`, the arguments of the function."""

    def __init__(self, spec: RowsSpec, buffers: Sequence[loops.Buffer]) -> None:
        self.spec, self.lanes = spec, spec.result.lanes
        self.source, self.weights, self.bias, *rest = buffers
        self.rows = rest.pop(0) if spec.waits else None
        self.starts, self.spans, self.places, *rest = rest
        leaves = len(spec.epilogue.leaves)
        self.leaves, self.result, self.workspace = rest[:leaves], rest[leaves], rest[leaves + 1 :]

    def write(self) -> None:
        spec = self.spec
        clear_border(self.result, spec.result)
        with loops.parallel(spec.parts) as part:
            if spec.count.chunks > 1:
                self._clear(part)
            with self._groups(part) as group, self._tiles() as (image, row, column):
                sums = self._sums(group, image, row, column)
                if spec.waits:
                    self._wait(sums, part, group, self._pixel(image, row, column))
                else:
                    self._store(sums, group, (image, row, column))
        if spec.waits:
            self._finish()

    def _groups(self, part: Any) -> Any:
        if self.spec.parts == 1:
            return loops.serial(self.spec.count.groups)
        return loops.span(self.spans[part], self.spans[part + 1])

    @contextmanager
    def _tiles(self) -> Iterator[tuple[Any, Any, Any]]:
        """A loop over all tiles of pixels: gives image, row and first column."""
        view, columns = self.spec.result, self.spec.columns
        across = -(-view.width // columns)
        with loops.serial(view.batch * view.height * across) as turn:
            line = turn // across
            image = line // view.height if view.batch > 1 else 0
            yield image, line % view.height, loops.tile_start(turn % across, columns, view.width)

    def _pixel(self, image: Any, row: Any, column: Any) -> Any:
        """Its number among those of all images."""
        view = self.spec.result
        return (image * view.height + row) * view.width + column

    def _sums(self, group: Any, image: Any, row: Any, column: Any) -> loops.Buffer:
        """One group on one tile: vectors of channels times pixels."""
        spec, lanes = self.spec, self.lanes
        count, splits, source = spec.vectors * spec.columns, spec.splits, spec.source
        sums = loops.local(splits * count * lanes, DTYPES[source.dtype].accumulator)
        for vector in range(spec.vectors):
            for x in range(spec.columns):
                self._begin(sums, vector * spec.columns + x, group, vector)
        begin, end = (loops.index(loops.table(self.starts, group + side), spec.index) for side in range(2))
        at = image * source.image + row * spec.stride[0] * source.row + column * spec.stride[1] * source.column
        at = loops.index(at, spec.index)
        if splits == 1:
            with loops.span(begin, end) as entry:
                self._step(sums, 0, entry, at)
            return sums
        whole = tirx.truncdiv(end - begin, loops.index(splits, spec.index))
        with loops.span(loops.index(0, spec.index), whole) as turn:
            for split in range(splits):
                self._step(sums, split * count, begin + turn * splits + split, at)
        with loops.span(begin + whole * splits, end) as entry:
            self._step(sums, 0, entry, at)
        for slot in range(count):
            total = loops.load(sums, slot * lanes, lanes)
            for split in range(1, splits):
                total = total + loops.load(sums, (split * count + slot) * lanes, lanes)
            loops.store(sums, slot * lanes, total, lanes)
        return sums

    def _begin(self, sums: loops.Buffer, slot: int, group: Any, vector: int) -> None:
        """The bias, or zeros where it is added at the end."""
        spec, lanes = self.spec, self.lanes
        zero = loops.number(0.0, lanes, DTYPES[spec.source.dtype].accumulator)
        for split in range(spec.splits):
            first = not split and not spec.waits
            value = loops.load(self.bias, (group * spec.vectors + vector) * lanes, lanes) if first else zero
            loops.store(sums, (split * spec.vectors * spec.columns + slot) * lanes, value, lanes)

    def _step(self, sums: loops.Buffer, first: int, entry: Any, at: Any) -> None:
        """The products of one entry of a list, added to the sums from `first` on."""
        spec, lanes = self.spec, self.lanes
        place = loops.index(loops.table(self.places, entry), spec.index) + at
        for x in range(spec.columns):
            element = loops.load(self.source, place + x * spec.stride[1] * spec.source.column)
            for vector in range(spec.vectors):
                slot = (first + vector * spec.columns + x) * lanes
                weight = loops.load(self.weights, (entry * spec.vectors + vector) * lanes, lanes)
                loops.store(sums, slot, loops.load(sums, slot, lanes) + loops.broadcast(element, lanes) * weight, lanes)

    def _store(self, sums: loops.Buffer, group: Any, at: tuple[Any, Any, Any]) -> None:
        """What the epilogue makes of the sums, where channels follow each other."""
        spec, lanes, (image, row, column) = self.spec, self.lanes, at
        for vector in range(spec.vectors):
            block = group * spec.vectors + vector
            with loops.when(block < spec.result.blocks if spec.result.blocks % spec.vectors and vector else None):
                for x in range(spec.columns):
                    value = loops.load(sums, (vector * spec.columns + x) * lanes, lanes)
                    self._put(value, (image, block, row, column + x))

    def _put(self, value: Any, position: tuple[Any, Any, Any, Any]) -> None:
        found = self.spec.epilogue.value(value, self.leaves, position, self.lanes)
        loops.store(self.result, self.spec.result.offset(*position), found, self.lanes)

    def _clear(self, part: Any) -> None:
        spec, lanes = self.spec, self.lanes
        every = spec.pixels * spec.result.blocks
        zero = loops.number(0.0, lanes, DTYPES[spec.source.dtype].accumulator)
        with loops.serial(every) as vector:
            loops.store(self.workspace[0], (part * every + vector) * lanes, zero, lanes)

    def _wait(self, sums: loops.Buffer, part: Any, group: Any, pixel: Any) -> None:
        """Puts each sum at its row; with chunks it is added to what is there."""
        spec, lanes, height = self.spec, self.lanes, self.spec.count.blocking.height
        chunks = spec.count.chunks > 1
        for x in range(spec.columns):
            first = ((part * spec.pixels if chunks else 0) + pixel + x) * spec.result.blocks * lanes
            for place in range(height):
                at = first + loops.table(self.rows, group * height + place)
                value = loops.load(sums, (place // lanes * spec.columns + x) * lanes + place % lanes)
                loops.store(self.workspace[0], at, loops.load(self.workspace[0], at) + value if chunks else value)

    def _finish(self) -> None:
        """The sums of all parts with the bias, and the epilogue."""
        spec, lanes, view = self.spec, self.lanes, self.spec.result
        copies = spec.parts if spec.count.chunks > 1 else 1
        share = -(-view.blocks // spec.parts)
        with loops.parallel(-(-view.blocks // share)) as part, loops.serial(share) as turn:
            block = loops.at_most(part * share + turn, view.blocks - 1) if view.blocks % share else part * share + turn
            with loops.serial(view.batch * view.height) as line, loops.serial(view.width) as column:
                image, row = (line // view.height, line % view.height) if view.batch > 1 else (0, line)
                pixel = self._pixel(image, row, column)
                value = loops.load(self.bias, block * lanes, lanes)
                for copy in range(copies):
                    at = ((copy * spec.pixels + pixel) * view.blocks + block) * lanes
                    value = value + loops.load(self.workspace[0], at, lanes)
                self._put(value, (image, block, row, column))
