"""Sorting rows: stable, and with NaN as the largest of all, as PyTorch has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from . import loops

__all__ = ["SortSpec", "sort_kernel"]


@dataclass(frozen=True)
class SortSpec:
    """Rows of `shape`'s last axis are sorted, the largest first where `descending`."""

    shape: tuple[int, ...]
    dtype: str
    descending: bool

    @property
    def passes(self) -> int:
        """Over a row; each merges runs of twice the length."""
        return math.ceil(math.log2(max(1, self.shape[-1])))


def sort_kernel(spec: SortSpec, name: str) -> tirx.PrimFunc:
    """The TIR function ``(source, values, indices, work)``: indices are int64, `work` int32 of twice the size."""
    size = math.prod(spec.shape)
    arguments = [
        ("source", (size,), spec.dtype),
        ("values", (size,), spec.dtype),
        ("indices", (size,), "int64"),
        ("work", (2 * size,), "int32"),
    ]
    return loops.kernel(name, arguments, lambda *buffers: _sort(spec, *buffers))


def _sort(
    spec: SortSpec, source: loops.Buffer, values: loops.Buffer, indices: loops.Buffer, work: loops.Buffer
) -> None:
    """Merges runs of 1, 2, 4 ... elements between the halves of `work`."""
    width = spec.shape[-1]
    with loops.parallel(math.prod(spec.shape[:-1])) as row:
        halves = row * (2 * width)
        with loops.serial(width) as at:
            loops.store(work, halves + at, at)
        with loops.serial(spec.passes) as step:
            run = tirx.const(1, "int32") << step
            _merge(spec, source, row * width, work, (halves + step % 2 * width, halves + (step + 1) % 2 * width), run)
        found = halves + spec.passes % 2 * width
        with loops.serial(width) as at:
            index = loops.load(work, found + at)
            loops.store(indices, row * width + at, tirx.Cast("int64", index))
            loops.store(values, row * width + at, loops.load(source, row * width + index))


def _merge(
    spec: SortSpec, source: loops.Buffer, row: Any, work: loops.Buffer, halves: tuple[Any, Any], run: Any
) -> None:
    """Neighbouring runs of one half of `work` into the other, `heads` being where the two are read next."""
    width = spec.shape[-1]
    old, new = halves
    heads = loops.local(2, "int32")
    with loops.serial(width) as at:
        start = at // (2 * run) * (2 * run)
        middle, end = loops.at_most(start + run, width), loops.at_most(start + 2 * run, width)
        with loops.when(tirx.EQ(at, start)):
            loops.store(heads, 0, start)
            loops.store(heads, 1, middle)
        first, second = loops.load(heads, 0), loops.load(heads, 1)
        ones = [loops.load(work, old + loops.at_most(head, width - 1)) for head in (first, second)]
        a, b = (loops.load(source, row + index) for index in ones)
        second_next = tirx.any(first >= middle, tirx.all(second < end, _before(spec, b, a)))
        chosen = loops.local(1, "int32")
        loops.store(chosen, 0, tirx.Select(second_next, tirx.const(1, "int32"), tirx.const(0, "int32")))
        loops.store(work, new + at, loops.load(work, old + loops.load(heads, loops.load(chosen, 0))))
        loops.store(heads, loops.load(chosen, 0), loops.load(heads, loops.load(chosen, 0)) + 1)


def _before(spec: SortSpec, later: Any, earlier: Any) -> Any:
    """Whether an element has to come before one that stands before it."""
    ahead = later > earlier if spec.descending else later < earlier
    if not spec.dtype.startswith("float"):
        return ahead
    largest, other = (later, earlier) if spec.descending else (earlier, later)
    return tirx.any(ahead, tirx.all(tirx.isnan(largest), tirx.Not(tirx.isnan(other))))
