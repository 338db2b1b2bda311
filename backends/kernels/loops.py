"""The one place that speaks to TVM's TIR builder: loop nests, vectors, and named buffers.

Kernels are written as explicit loops over flat buffers, so that what is in registers is visible in the
source, and so that a change of TVM's builder is a change of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as builder

from ..dtypes import DTYPES

__all__ = [
    "SCHEDULED",
    "Buffer",
    "at_most",
    "broadcast",
    "converted",
    "element_type",
    "fenced",
    "index",
    "is_integer",
    "kernel",
    "lane",
    "load",
    "local",
    "number",
    "parallel",
    "picked",
    "serial",
    "shared",
    "span",
    "store",
    "table",
    "tile_start",
    "unroll",
    "when",
]

Buffer = Any
Expression = Any

_STACK_BYTES = 1024
"""TVM's limit for arrays on the stack."""

SCHEDULED = "reconvene.scheduled"
"""Attribute of functions that are finished and must not be scheduled again."""


def kernel(
    name: str,
    arguments: Sequence[tuple[str, Sequence[int], str]],
    body: Callable[..., None],
) -> tirx.PrimFunc:
    """A TIR function over `arguments` (name, shape, dtype); `body` gets one flat buffer for each."""
    with IRBuilder() as frame:
        with builder.prim_func(s_tir=True):
            builder.func_name(name)
            builder.func_attr({"tirx.noalias": True, "op_pattern": 8, SCHEDULED: True})
            buffers = [builder.arg(n, builder.buffer(tuple(s), d, layout=None)) for n, s, d in arguments]
            body(*[_flat(buffer, shape) for buffer, (_, shape, _) in zip(buffers, arguments, strict=True)])
        return _rooted(frame.get())


def _rooted(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its body in the root block that Relax' passes expect of every TIR function."""
    root = SBlock([], [], [], "root", function.body)
    return function.with_body(SBlockRealize([], tirx.const(True, "bool"), root))


def _flat(buffer: Buffer, shape: Sequence[int]) -> Buffer:
    """A view of `buffer` with one dimension, since all addressing here is by offset."""
    if len(shape) == 1:
        return buffer
    size = 1
    for extent in shape:
        size *= extent
    return builder.decl_buffer((size,), buffer.dtype, data=buffer.data, layout=None)


def parallel(extent: int) -> AbstractContextManager[Any]:
    """A loop whose turns are shared among threads; one turn needs no threads."""
    return builder.parallel(0, extent) if extent > 1 else builder.serial(0, extent)


@contextmanager
def shared(turns: int, workers: int) -> Iterator[tuple[Expression, Expression]]:
    """A loop of `turns` that are shared among at most `workers`: gives the worker and the turn, every turn exactly once.

    What a turn writes may then be scratch that it reads again: no other worker does the same at the same time.
    """
    share = -(-turns // workers)
    used = -(-turns // share)
    with parallel(used) as worker, serial(share) as part:
        turn = worker * share + part
        with when(turn < turns if used * share > turns else None):
            yield worker, turn


def serial(extent: int) -> AbstractContextManager[Any]:
    """A loop that stays a loop."""
    return builder.serial(0, extent)


@contextmanager
def span(begin: Expression, end: Expression) -> Iterator[Expression]:
    """A loop from `begin` to before `end`, which are known when it runs."""
    extent = end - begin
    with builder.serial(tirx.const(0, str(extent.ty)), extent) as turn:
        yield begin + turn


def unroll(extent: int) -> AbstractContextManager[Any]:
    """A loop that is written out."""
    return builder.unroll(0, extent)


@contextmanager
def when(*conditions: Expression | None) -> Iterator[None]:
    """Statements that run only where all `conditions` hold; None holds always."""
    real = [condition for condition in conditions if condition is not None]
    if not real:
        yield
        return
    with builder.If(tirx.all(*real)), builder.Then():
        yield


def local(size: int, dtype: str = "float32") -> Buffer:
    """A small array that the code generator keeps in registers when all its indices are literal.

    Inside parallel loops, TVM puts small arrays of scope "global" on the stack, but asks its runtime for the memory of
    every "local" one, at each turn of the loop; LLVM cannot keep what such a pointer leads to in registers alone.
    """
    scope = "global" if size * DTYPES[dtype].bytes < _STACK_BYTES else "local"
    return builder.alloc_buffer((size,), dtype, scope=scope, layout=None)


def number(value: float, lanes: int = 1, dtype: str = "float32") -> Expression:
    """A literal, repeated over `lanes`."""
    return broadcast(tirx.const(value, dtype), lanes)


def broadcast(value: Expression, lanes: int) -> Expression:
    """`value` in each of `lanes`."""
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def lane(vector: Expression, index: int) -> Expression:
    """One element of a vector. Broadcast again, it becomes the lane operand of a multiply-add where there is one."""
    return tirx.Shuffle([vector], [tirx.const(index, "int32")])


def picked(vectors: Sequence[Expression], places: Sequence[int]) -> Expression:
    """The elements at `places` of some vectors, one after the other."""
    return tirx.Shuffle(list(vectors), [tirx.const(place, "int32") for place in places])


def load(buffer: Buffer, offset: Expression, lanes: int = 1) -> Expression:
    """`lanes` neighbouring elements from `offset`."""
    return buffer[_ramp(offset, lanes)] if lanes > 1 else buffer[offset]


def store(buffer: Buffer, offset: Expression, value: Expression, lanes: int = 1) -> None:
    """Writes `lanes` neighbouring elements from `offset`, as the buffer's type."""
    value = converted(value, str(buffer.dtype), lanes)
    builder.buffer_store(buffer, value, [_ramp(offset, lanes) if lanes > 1 else offset])


def _ramp(offset: Expression, lanes: int) -> Expression:
    wide = not isinstance(offset, int) and str(offset.ty) == "int64"
    return tirx.Ramp(offset, tirx.const(1, "int64") if wide else 1, lanes)


def converted(value: Expression, dtype: str, lanes: int = 1) -> Expression:
    """`value`, a vector of `lanes`, as another type; as it is where it has that type."""
    wanted = f"{dtype}x{lanes}" if lanes > 1 else dtype
    return value if str(value.ty) == wanted else tirx.Cast(wanted, value)


def element_type(value: Expression) -> str:
    """The type of a value, or of each element of a vector."""
    return str(value.ty).partition("x")[0]


def fenced(value: Expression, lanes: int) -> Expression:
    """`value`, a vector of int32, as one that LLVM computes as it stands there: it puts sums in no other order, and does not
    load lanes of it by themselves. There is no instruction for it.
    """
    opaque = tirx.call_llvm_pure_intrin(
        f"float32x{lanes}", "llvm.arithmetic.fence", tirx.reinterpret(f"float32x{lanes}", value)
    )
    return tirx.reinterpret(f"int32x{lanes}", opaque)


def is_integer(value: Expression) -> bool:
    """Whether a value, or each element of a vector, is a whole number."""
    return "int" in element_type(value)


def table(buffer: Buffer, index: Expression) -> Expression:
    """One entry of an int32 table."""
    return buffer[index]


def index(value: Expression, dtype: str) -> Expression:
    """An index of a type. One as wide as a pointer that a loop counts becomes a pointer that moves on; a narrower one is
    widened for every access, since it may not be known to stay in its type.
    """
    return tirx.const(value, dtype) if isinstance(value, int) else converted(value, dtype)


def at_most(value: Expression, bound: int) -> Expression:
    """The smaller of an index and a bound."""
    return tirx.min(value, tirx.const(bound, "int32"))


def tile_start(index: Expression, tile: int, extent: int) -> Expression:
    """Where tile `index` begins. The last tile is moved back to end at `extent`, so that no tile is ever
    partial.

    Moved tiles compute a few elements twice, with the same result: cheaper than a second, slower loop for
    the rest.
    """
    if tile >= extent:
        return 0
    return index * tile if extent % tile == 0 else at_most(index * tile, extent - tile)
