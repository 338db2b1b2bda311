"""Convolutions of few weights over images in planes: vectors run along pixels, and only weights that are not zero are read.

A register tile is `height` output channels times a few vectors of neighbouring pixels. Channels that are computed together
have one list of places in the input (`packed_rows`): for each of these the vectors are loaded once, and multiplied by a
weight for every channel. So the number of channels that share a list decides how many products a load serves.

With several chunks of columns, channels have other partners in each, and their sums wait in memory from chunk to chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Convolution
from . import loops
from .image import Slots
from .packed_rows import even_spans, group_rows, pack_rows
from .planes import clear_around, inside, zero_between
from .tiles import Machine, streamed_cycles
from .windows import PlaneSpec, window_places, window_source
from .zeros import GroupCount, entries_of

__all__ = ["GatherSpec", "step_cycles"]

_LOAD = 1.0
"""Products that start while a vector within a cache line is loaded, or an element spread over a vector."""
_BEYOND = 0.6
"""Loads that one takes longer for each cache line of it that is not in the first cache."""
_GROUP = 30.0
"""What starting a list costs, in products."""
_WAITS, _WAITS_BY_VECTOR, _WAITS_BY_CHANNEL = 5.0, 2.6, 1.3
"""Cycles of a step in which a core that waits for loads does nothing else; a test compares them with the model."""
_ISSUED, _ISSUED_BY_VECTOR = 10.0, 1.5
"""Instructions of a step beside its products, two for a pair of vectors that is loaded and one for the address."""
_WAITED = 4
"""Channels, of which more have products enough to wait with."""


@dataclass(frozen=True, kw_only=True)
class GatherSpec(PlaneSpec):
    """One convolution, with everything its code depends on.

    Attributes:
        count: how channels are computed together.
        channels_first: whether all tiles of some channels follow each other, instead of all channels of a tile.
        parts: of equally many weights, that cores share where there are few tiles.
        by_lane: whether weights are loaded as vectors, and their lanes taken one after the other.
        index: the machine's, see `tiles.Machine`.
    """

    family: ClassVar[str] = "gather"

    count: GroupCount
    channels_first: bool = False
    parts: int = 1
    by_lane: bool = False
    index: str = "int32"

    @property
    def height(self) -> int:
        """Channels that are computed together."""
        return self.count.blocking.height

    @property
    def workspace(self) -> tuple[int, ...]:
        """The copy of the input, and for each worker the sums that wait."""
        staged = (self.staging.size,) if self.staging else ()
        return staged + ((self.cores * self.outputs * self.tile,) if self.count.chunks > 1 else ())

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights and of the places they are for."""
        return self.count.entries * (self.height * self.source.element_bytes + 4)

    @property
    def _read_bytes(self) -> int:
        """What the rows of a chunk read for a tile, each anew."""
        pitch, steps = (self.staging.pitch, self.staging.steps) if self.staging else (self.source.row, (1, 1))
        rows = (self.kernel[0] - 1) * self.dilation[0] // steps[0]
        planes = -(-self.source.blocks // self.count.chunks) * min(steps[0] * steps[1], self.kernel[0] * self.kernel[1])
        return planes * (self.tile + rows * pitch) * self.source.element_bytes

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights ``(entries, height)``, bias by output, rows ``(groups, height)``, the first entry of each group, the first
        group of each chunk or part, places in the input by entry, and what is a pixel.
        """
        entries = entries_of(convolution)
        packed = pack_rows(entries, group_rows(entries, self.count.blocking))
        weights = packed.weights.astype(self.source.dtype).reshape(-1)
        spans = packed.spans if self.count.chunks > 1 else even_spans(packed, self.parts)
        places = window_places(self, slots).reshape(-1)[packed.columns].astype("int32")
        bias = convolution.weights.bias.astype(self.source.dtype)
        tables = (weights, bias, packed.rows.reshape(-1), packed.starts, spans, places)
        return (*tables, inside(self.result, self.tiles * self.tile)) if self.result.halo else tables

    def typical(self) -> dict[int, Array]:
        """Tables of lists that are equally long, of places all over the window and the channels."""
        count, random = self.count, np.random.default_rng(0)
        starts = np.arange(count.groups + 1) * count.entries // count.groups
        parts = count.chunks if count.chunks > 1 else self.parts
        every = window_places(self, np.arange(self.source.blocks)).reshape(-1)
        chosen = random.integers(0, len(every), count.entries)
        order = np.lexsort((chosen, np.searchsorted(starts, np.arange(count.entries), side="right")))
        rows = np.arange(count.groups * self.height) % self.outputs
        spans = np.arange(parts + 1) * count.groups // parts
        tables = (rows, starts, spans, every[chosen[order]])
        return {place: table.astype("int32") for place, table in enumerate(tables, start=3)}

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: the inner loop's products and loads, and weights from memory."""
        height, vectors, count = self.height, self.vectors, self.count
        moved = 2 if count.chunks > 1 else 0
        near = self._read_bytes <= machine.l1_bytes
        step = step_cycles(machine, height, vectors, self.kernel == (1, 1) and not self.staging, near)
        group = (_GROUP + (3.0 + moved) * height * vectors) / machine.rate
        compute = self.result.batch * self.tiles * (count.entries * step + count.groups * group)
        staged = self.staging.cycles(_LOAD) / machine.rate if self.staging else 0.0
        return streamed_cycles(machine, compute + staged, self.weight_bytes)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, packed arrays..., leaves..., result, workspace...)``."""
        dtype, count = self.source.dtype, self.count
        spans = count.chunks if count.chunks > 1 else self.parts
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (count.entries * self.height,), dtype),
            ("bias", (self.outputs,), dtype),
            ("rows", (count.groups * self.height,), "int32"),
            ("starts", (count.groups + 1,), "int32"),
            ("spans", (spans + 1,), "int32"),
            ("places", (count.entries,), "int32"),
        ]
        if self.result.halo:
            arguments.append(("inside", (self.tiles * self.tile,), "float32"))
        arguments += [*self.epilogue.arguments(), ("result", *self.result.argument)]
        arguments += [(f"workspace{i}", (size,), dtype) for i, size in enumerate(self.workspace)]
        return loops.kernel(name, arguments, lambda *buffers: _Body(self, buffers).write())


def step_cycles(machine: Machine, height: int, vectors: int, aligned: bool, near: bool) -> float:
    """For an entry of a list: products, or loads if they take longer. Of windows, a vector often lies in two cache lines.

    Args:
        height: channels that share the entry.
        aligned: whether vectors begin with cache lines.
        near: whether what is read lies in the first cache.
    """
    line = 1.0 if aligned else 1.0 + machine.vector_bytes / 64
    line += 0.0 if near else _BEYOND * machine.vector_bytes / 64
    weights = -(-height // machine.lanes()) if machine.by_lane else height
    waits = (
        _WAITS + _WAITS_BY_VECTOR * vectors + _WAITS_BY_CHANNEL * min(height, _WAITED)
        if machine.waits_for_loads
        else 0.0
    )
    issued = (height * vectors + _ISSUED_BY_VECTOR * vectors + _ISSUED) / machine.issues if machine.issues else 0.0
    return max(max(height * vectors, _LOAD * (vectors * line + weights + 1)) / machine.rate, issued) + waits


class _Body:
    """Writes the loops over `buffers`, the arguments of the function."""

    def __init__(self, spec: GatherSpec, buffers: Sequence[loops.Buffer]) -> None:
        self.spec = spec
        self.source, self.weights, self.bias, self.rows, self.starts, self.spans, self.places, *rest = buffers
        self.inside = rest.pop(0) if spec.result.halo else None
        leaves = len(spec.epilogue.leaves)
        self.leaves, self.result, self.workspace = rest[:leaves], rest[leaves], rest[leaves + 1 :]

    def write(self) -> None:
        spec = self.spec
        clear_around(self.result, spec.result)
        self.read, self.image = window_source(spec, self.source, self.workspace[0] if spec.staging else None)
        if spec.count.chunks > 1:
            self._in_chunks()
        elif spec.channels_first:
            turns = spec.result.batch * spec.tiles
            with loops.parallel(spec.parts) as part, self._groups(part) as group, loops.serial(turns) as turn:
                self._tile(group, *self._place(turn), self._bias, self._finish)
        else:
            with loops.parallel(spec.result.batch * spec.tiles * spec.parts) as work:
                image, at = self._place(work // spec.parts)
                with self._groups(work % spec.parts) as group:
                    self._tile(group, image, at, self._bias, self._finish)

    def _in_chunks(self) -> None:
        """The first chunk begins with the bias, the last one ends with the epilogue."""
        spec, chunks = self.spec, self.spec.count.chunks
        with loops.shared(spec.result.batch * spec.tiles, spec.cores) as (worker, turn):
            image, at = self._place(turn)
            self.waiting = worker * (spec.outputs * spec.tile)
            with self._groups(0) as group:
                self._tile(group, image, at, self._bias, self._wait)
            if chunks > 2:
                with loops.span(self.spans[1], self.spans[chunks - 1]) as group:
                    self._tile(group, image, at, self._waited, self._wait)
            with self._groups(chunks - 1) as group:
                self._tile(group, image, at, self._waited, self._finish)

    def _groups(self, span: Any) -> Any:
        if self.spec.count.chunks == self.spec.parts == 1:
            return loops.serial(self.spec.count.groups)
        return loops.span(self.spans[span], self.spans[span + 1])

    def _place(self, turn: Any) -> tuple[Any, Any]:
        """Image and first pixel of a tile."""
        spec = self.spec
        image = turn // spec.tiles if spec.result.batch > 1 else 0
        return image, loops.tile_start(turn % spec.tiles, spec.tile, spec.reach)

    def _tile(self, group: Any, image: Any, at: Any, begin: Callable[..., Any], end: Callable[..., None]) -> None:
        """The sums of one group on one tile."""
        spec, lanes = self.spec, self.spec.lanes
        sums = loops.local(spec.height * spec.tile, DTYPES[spec.source.dtype].accumulator)
        channels = [loops.table(self.rows, group * spec.height + place) for place in range(spec.height)]
        for place, channel in enumerate(channels):
            begin(sums, place, channel)
        pixel = loops.index(at + image * self.image, spec.index)
        with loops.span(*(loops.index(self.starts[group + side], spec.index) for side in range(2))) as entry:
            first = loops.index(loops.table(self.places, entry), spec.index) + pixel
            factors = self._factors(entry)
            for place in range(spec.height):
                for vector in range(spec.vectors):
                    slot = (place * spec.vectors + vector) * lanes
                    product = factors(place) * loops.load(self.read, first + vector * lanes, lanes)
                    loops.store(sums, slot, loops.load(sums, slot, lanes) + product, lanes)
        for place, channel in enumerate(channels):
            for vector in range(spec.vectors):
                value = loops.load(sums, (place * spec.vectors + vector) * lanes, lanes)
                end(value, image, channel, at, vector)

    def _factors(self, entry: Any) -> Callable[[int], Any]:
        """A vector of the weight of each channel."""
        spec, lanes = self.spec, self.spec.lanes
        if not spec.by_lane or spec.height % lanes:
            return lambda place: loops.broadcast(loops.load(self.weights, entry * spec.height + place), lanes)

        def of_lane(place: int) -> Any:
            whole = loops.load(self.weights, entry * spec.height + place // lanes * lanes, lanes)
            return loops.broadcast(loops.lane(whole, place % lanes), lanes)

        return of_lane

    def _bias(self, sums: loops.Buffer, place: int, channel: Any) -> None:
        spec, lanes = self.spec, self.spec.lanes
        for vector in range(spec.vectors):
            value = loops.broadcast(loops.load(self.bias, channel), lanes)
            loops.store(sums, (place * spec.vectors + vector) * lanes, value, lanes)

    def _waited(self, sums: loops.Buffer, place: int, channel: Any) -> None:
        spec, lanes = self.spec, self.spec.lanes
        for vector in range(spec.vectors):
            value = loops.load(self.workspace[-1], self._waits(channel, vector), lanes)
            loops.store(sums, (place * spec.vectors + vector) * lanes, value, lanes)

    def _wait(self, value: Any, image: Any, channel: Any, at: Any, vector: int) -> None:
        loops.store(self.workspace[-1], self._waits(channel, vector), value, self.spec.lanes)

    def _waits(self, channel: Any, vector: int) -> Any:
        return self.waiting + channel * self.spec.tile + vector * self.spec.lanes

    def _finish(self, value: Any, image: Any, channel: Any, at: Any, vector: int) -> None:
        """Stores what the epilogue makes of the sums; where no pixel is, zeros if somebody reads them."""
        spec, lanes = self.spec, self.spec.lanes
        position = (image, channel, 0, at + vector * lanes)
        found = spec.epilogue.value(value, self.leaves, position, lanes)
        found = zero_between(spec.result, self.inside, position[3], found, lanes)
        loops.store(self.result, spec.result.offset(*position), found, lanes)
