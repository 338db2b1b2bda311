"""Kernels that write at indices: rows of a matrix, and elements along one axis.

TVM's own copy and add element by element, start threads for every row, divide by two for a mean, lose NaN, and write wherever
an index points. Here a task has columns of its own, which it copies and then writes in the order of the indices: what is
written does not depend on the number of threads, and indices outside of the tensor write nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

__all__ = ["LEGALIZED"]

_COLUMNS = 64
"""Of a task, where there are more: enough for a cache line and a vector, few enough for several tasks."""


def scattered(data: te.Tensor, index: te.Tensor, updates: te.Tensor, axis: int, reduction: str) -> te.Tensor:
    """`updates` written into `data` along `axis`, with an index for each or, of shape ``(M, 1)``, for each row.

    Rows may be counted from the end.
    """
    shape = [int(extent) for extent in data.shape]
    blocks, extent, columns = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    count = int(index.shape[axis])
    by_row = len(index.shape) == 2 and len(shape) == 2 and int(index.shape[1]) == 1 and axis == 0
    width = _COLUMNS if columns % _COLUMNS == 0 else columns

    def inside(row: Any) -> Any:
        return T.If(tirx.all(row >= 0, row < extent))

    def combined(old: Any, new: Any) -> Any:
        return _combined(reduction, old, new, data.dtype)

    def body(inputs: Any, outputs: Any) -> Any:
        source, places, values, out = (T.buffer_proxy(buffer) for buffer in (*inputs, outputs[0]))

        with IRBuilder() as builder:
            with T.parallel(0, blocks * columns // width) as task:
                block, first = task // (columns // width), task % (columns // width) * width
                with T.serial(0, extent) as row, T.serial(0, width) as column:
                    at = (block * extent + row) * columns + first + column
                    out[at] = source[at]
                with T.serial(0, count) as number:
                    if by_row:
                        given = places[number]
                        row = tirx.Select(given < 0, given + extent, given)
                        with inside(row), T.Then(), T.serial(0, width) as column:
                            at = row * columns + first + column
                            out[at] = combined(out[at], values[number * columns + first + column])
                    else:
                        with T.serial(0, width) as column:
                            entry = (block * count + number) * columns + first + column
                            row = places[entry]
                            with inside(row), T.Then():
                                at = (block * extent + row) * columns + first + column
                                out[at] = combined(out[at], values[entry])
            return builder.get()

    return te.extern(
        [data.shape], [data, index, updates], body, dtype=data.dtype, name="scattered",
        out_buffers=[tirx.decl_buffer(data.shape, data.dtype, "scattered", layout=None)],
    )  # fmt: skip


def _combined(reduction: str, old: Any, new: Any, dtype: str) -> Any:
    if reduction == "update":
        return new
    if reduction == "add":
        return old + new
    if reduction == "mul":
        return old * new
    better = new > old if reduction == "max" else new < old
    taken = tirx.any(better, tirx.isnan(new)) if str(dtype).startswith("float") else better
    return tirx.Select(taken, new, old)


def _rows(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return builder.call_te(scattered, *call.args, 0, str(call.attrs.reduction))


def _elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis = int(call.attrs.axis) % len(call.args[0].ty.shape)
    return builder.call_te(scattered, *call.args, axis, str(call.attrs.reduction))


LEGALIZED: Mapping[str, Callable[[relax.BlockBuilder, relax.Call], relax.Expr]] = {
    "relax.scatter_nd": _rows,
    "relax.scatter_elements": _elements,
}
"""For ``LegalizeOps``, in place of TVM's kernels."""
