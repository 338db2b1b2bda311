"""Kernels that only move elements: into the blocked layout, out of it, between channel slots, and as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from . import loops
from .image import View, clear_border
from .planes import is_planes
from .tiles import Machine

__all__ = [
    "PackSpec",
    "RearrangeSpec",
    "UnpackSpec",
    "copy_kernel",
]


@dataclass(frozen=True)
class PackSpec:
    """``(N, C, H, W)`` in rows to blocks of channels."""

    family: ClassVar[str] = "pack"

    channels: int
    shape: tuple[int, ...]
    result: View

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return _moved(self.result, self.channels)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(plain, result)``."""
        arguments = [("plain", self.shape, self.result.dtype), ("result", *self.result.argument)]
        return loops.kernel(name, arguments, lambda *buffers: _pack(self, *buffers))


@dataclass(frozen=True)
class UnpackSpec:
    """Blocks of channels to `shape`, ``(N, C, H, W)`` or ``(N, C)``; channel c is in slot c unless
    `tabled`.
    """

    family: ClassVar[str] = "unpack"

    source: View
    channels: int
    shape: tuple[int, ...]
    tabled: bool

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return _moved(self.source, self.channels)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source[, slots], plain)``; `slots` is int32, one for each channel."""
        table = [("slots", (self.channels,), "int32")] if self.tabled else []
        arguments = [("source", *self.source.argument), *table, ("plain", self.shape, self.source.dtype)]
        return loops.kernel(name, arguments, lambda *buffers: _unpack(self, *buffers))


@dataclass(frozen=True)
class RearrangeSpec:
    """Channels of several images to slots of one; `counts` of them from each, by tables of slots."""

    family: ClassVar[str] = "rearrange"

    sources: tuple[View, ...]
    counts: tuple[int, ...]
    result: View

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return self.result.size / self.result.lanes + sum(map(_moved, self.sources, self.counts))

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(sources..., tables..., result)``; a table is int32 pairs (slot in source, in
        result).
        """
        arguments = [
            *[(f"source{i}", *view.argument) for i, view in enumerate(self.sources)],
            *[(f"table{i}", (2 * count,), "int32") for i, count in enumerate(self.counts)],
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _rearrange(self, *buffers))


def _moved(view: View, channels: int) -> float:
    """Cycles for single elements; a row of a plane is moved as it is."""
    return view.batch * channels * view.height * view.width * (0.25 if is_planes(view) else 2.0)


def _pack(spec: PackSpec, plain: loops.Buffer, result: loops.Buffer) -> None:
    view = spec.result
    clear_border(result, view)
    with loops.parallel(view.batch * view.height) as work:
        image, row = (work // view.height, work % view.height) if view.batch > 1 else (0, work)
        whole, rest = divmod(spec.channels, view.lanes)
        if whole:
            with loops.serial(whole) as block:
                _pack_row(spec, plain, result, (image, block, row), view.lanes)
        if rest:
            _pack_row(spec, plain, result, (image, whole, row), rest)


def _pack_row(
    spec: PackSpec, plain: loops.Buffer, result: loops.Buffer, at: tuple[Any, Any, Any], channels: int
) -> None:
    view = spec.result
    image, block, row = at
    with loops.serial(view.width) as column:
        offset = view.offset(image, block, row, column)
        if channels < view.lanes:
            loops.store(result, offset, loops.number(0, view.lanes, view.dtype), view.lanes)
        with loops.serial(channels) as lane:
            channel = block * view.lanes + lane
            source = ((image * spec.channels + channel) * view.height + row) * view.width + column
            loops.store(result, offset + lane, loops.load(plain, source))


def _unpack(spec: UnpackSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    plain = rest[-1]
    view = spec.source
    with loops.parallel(view.batch * spec.channels) as work:
        image, channel = (work // spec.channels, work % spec.channels) if view.batch > 1 else (0, work)
        slot = loops.table(rest[0], channel) if spec.tabled else channel
        with loops.serial(view.height) as row, loops.serial(view.width) as column:
            offset = view.offset(image, slot // view.lanes, row, column) + slot % view.lanes
            target = (work * view.height + row) * view.width + column
            loops.store(plain, target, loops.load(source, offset))


def _rearrange(spec: RearrangeSpec, *buffers: loops.Buffer) -> None:
    count = len(spec.sources)
    sources, tables, result = buffers[:count], buffers[count:-1], buffers[-1]
    view = spec.result
    with loops.parallel(view.size // view.lanes) as pixel:
        loops.store(result, pixel * view.lanes, loops.number(view.border, view.lanes, view.dtype), view.lanes)
    for buffer, table, source, channels in zip(sources, tables, spec.sources, spec.counts, strict=True):
        with loops.parallel(view.batch * view.height) as work:
            image, row = (work // view.height, work % view.height) if view.batch > 1 else (0, work)
            with loops.serial(channels) as channel:
                old, new = loops.table(table, channel * 2), loops.table(table, channel * 2 + 1)
                with loops.serial(view.width) as column:
                    offset = source.offset(image, old // source.lanes, row, column) + old % source.lanes
                    target = view.offset(image, new // view.lanes, row, column) + new % view.lanes
                    loops.store(result, target, loops.load(buffer, offset))


def copy_kernel(shape: tuple[int, ...], dtype: str, name: str) -> tirx.PrimFunc:
    """The TIR function ``(source, result)``, for tensors that do not overlap."""
    return loops.kernel(name, [("source", shape, dtype), ("result", shape, dtype)], lambda *both: _copy(shape, *both))


def _copy(shape: tuple[int, ...], source: loops.Buffer, result: loops.Buffer) -> None:
    with loops.serial(math.prod(shape)) as index:
        loops.store(result, index, loops.load(source, index))
