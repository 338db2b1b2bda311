"""What whole numbers a model takes for an input: what they index is followed through the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from .values import Operation, is_static, is_tensor, shape_of

__all__ = ["ANYTHING", "IndexRange", "index_ranges"]

_PASSES = tuple(
    f"aten.{name}"
    for name in (
        "alias clone contiguous detach _to_copy to type_as view reshape flatten unflatten squeeze unsqueeze expand repeat "
        "transpose permute slice select narrow index_select split chunk unbind t flip roll cat stack"
    ).split()
)
"""Operators whose results hold the numbers of their operand, all or some."""

_COMPARES = tuple(f"aten.{name}" for name in "eq ne gt ge lt le".split())

_PICKS = tuple(
    "index_select gather take_along_dim index_add index_copy index_fill scatter scatter_add scatter_reduce".split()
)
"""Operators that pick positions of the axis `dim` by one index."""


@dataclass(frozen=True)
class IndexRange:
    """Whole numbers that an input may hold.

    Attributes:
        low: the smallest, or None where nothing in the graph says so.
        high: the largest, or None.
        telling: numbers that the graph asks for: the padding of an embedding, what ids are compared with.
        ascending: where bags of an embedding begin: from zero on, none before the one in front of it. PyTorch reads beyond
            its memory where they do not.
    """

    low: int | None = None
    high: int | None = None
    telling: tuple[int, ...] = ()
    ascending: bool = False

    def bounds(self, example: Tensor) -> tuple[int, int]:
        """Smallest and largest number to draw; what the graph leaves open follows from an example's type and numbers."""
        if example.dtype is torch.uint8 and self.high is None:
            return 0, 255
        low, high = (int(bound) for bound in torch.aminmax(example))
        low = self.low if self.low is not None else min(0, low)
        high = self.high if self.high is not None else max(high, low)
        return low, max(low, high)

    def within(self, low: int, high: int) -> IndexRange:
        """The same with narrower bounds."""
        return replace(
            self,
            low=low if self.low is None else max(low, self.low),
            high=high if self.high is None else min(high, self.high),
        )

    def asking(self, number: int) -> IndexRange:
        """The same with one more telling number."""
        return replace(self, telling=tuple(dict.fromkeys((*self.telling, number))))


ANYTHING = IndexRange()


def index_ranges(module: fx.GraphModule) -> dict[int, IndexRange]:
    """By the place of an input among the graph's: what its whole numbers may be. Inputs that index nothing are absent."""
    found: dict[int, IndexRange] = {}
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    for place, node in enumerate(inputs):
        if is_tensor(node) and _is_whole(node):
            allowed = ANYTHING
            for reader, operand, offset in _readers(node, module):
                allowed = _narrowed(allowed, reader, operand, offset)
            if allowed != ANYTHING:
                found[place] = allowed
    return found


def _is_whole(node: fx.Node) -> bool:
    kind = node.meta["val"].dtype
    return not (kind.is_floating_point or kind.is_complex or kind is torch.bool)


def _readers(source: fx.Node, module: fx.GraphModule) -> Iterator[tuple[Operation, fx.Node, int]]:
    """Calls that read the numbers of `source`, by which value, and what has been added to them on the way."""
    pending, seen = [(source, 0)], {source}
    while pending:
        value, offset = pending.pop()
        for user in value.users:
            if user.op != "call_function" or user in seen:
                continue
            reader = Operation(user, module)
            yield reader, value, offset
            more = _shift(reader)
            for result in [out for out in reader.outputs if out is not None]:
                if more is not None and _is_whole(result):
                    seen.add(result)
                    pending.append((result, offset + more))


def _shift(reader: Operation) -> int | None:
    """What a call adds to the numbers it passes on; None where it makes others of them."""
    if reader.name in _PASSES:
        return 0
    other = reader.get("other")
    if reader.name in ("aten.add", "aten.sub") and isinstance(other, int) and reader.get("alpha", 1) == 1:
        return other if reader.name == "aten.add" else -other
    return None


def _narrowed(allowed: IndexRange, reader: Operation, operand: fx.Node, offset: int) -> IndexRange:
    """`allowed` after what one reader says of its operand, which is the input's numbers plus `offset`."""
    positions = _positions(reader, operand)
    if positions is not None:
        allowed = allowed.within(-offset, positions - 1 - offset)
    if reader.name == "aten.embedding_bag" and operand is reader["offsets"]:
        count = shape_of(reader["indices"])[0]
        return replace(allowed, low=0, high=count if is_static(count) else None, ascending=True)
    asked = reader.get("padding_idx") if reader.name in ("aten.embedding", "aten.embedding_bag") else None
    if reader.name in _COMPARES and isinstance(reader.get("other"), int):
        asked = reader.get("other")
    return allowed if asked is None or asked < 0 else allowed.asking(asked - offset)


def _positions(reader: Operation, operand: fx.Node) -> int | None:
    """How many positions `operand` picks from in a call; None where it picks nothing."""
    name = reader.name.removeprefix("aten.")
    size: Any = None
    if name in ("embedding", "embedding_bag") and reader.get("indices") is operand:
        size = shape_of(reader["weight"])[0]
    elif name in ("index", "index_put") and operand in reader["indices"]:
        size = shape_of(reader["self"])[_first_axis(reader["indices"], operand)]
    elif name in _PICKS:
        dim = reader.get("dim")
        picks = operand in (reader.get("index"), reader.get("indices"))
        size = shape_of(reader["self"])[dim] if picks and isinstance(dim, int) and shape_of(reader["self"]) else None
    elif name == "one_hot" and reader.get("num_classes", -1) > 0:
        size = reader["num_classes"]
    return int(size) if size is not None and is_static(size) else None


def _first_axis(indices: Any, operand: fx.Node) -> int:
    """The axis an index stands for: a mask before it takes as many as it has."""
    axis = 0
    for index in indices:
        if index is operand:
            break
        truth = is_tensor(index) and index.meta["val"].dtype is torch.bool
        axis += len(shape_of(index)) if truth else 1
    return axis
