"""What happens to an element between the register it was computed in and the place it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import loops
from .image import View
from .scalar import apply
from .vectors import Vectors
from .words import DOT

__all__ = ["Epilogue", "Operand", "Step"]


_ROUNDS = frozenset({"sadalp"})
"""Kinds of products (`Machine.dot`) of machines with a fast instruction that rounds to whole numbers, half to even: 64-bit ARM,
but for newer cores, of whose two vector units one alone does that, and takes two cycles for a vector.
"""


@dataclass(frozen=True)
class Operand:
    """Where a step reads: the anchor's result, another image (`leaf`), an earlier `step`, or a literal."""

    kind: str
    index: int = 0
    value: float = 0.0


@dataclass(frozen=True)
class Step:
    """One elementwise function of operands."""

    function: str
    parameters: tuple[float, ...]
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Epilogue:
    """Steps in order; the last one's value is stored. Without steps the anchor's result is stored.

    `keeps_nans` is the machine's, as in `scalar.Vectors`; `dtype` is the floating-point type that steps are computed in. Codes
    and their sums are int32 in registers (`codes`). `dot` is the machine's too (`Machine.dot`), where codes are made: which
    instructions there are for that.
    """

    steps: tuple[Step, ...] = ()
    leaves: tuple[View, ...] = ()
    keeps_nans: bool = False
    dtype: str = "float32"
    dot: str = ""

    @property
    def joins(self) -> bool:
        """Whether neighbouring pixels of a row may be one vector: all that is read lies side by side too, or is one for all."""
        return all(leaf.column in (0, leaf.lanes) for leaf in self.leaves)

    def arguments(self) -> list[tuple[str, Sequence[int], str]]:
        """Kernel arguments for the leaves, in order."""
        return [(f"leaf{i}", *leaf.argument) for i, leaf in enumerate(self.leaves)]

    def value(
        self, result: Any, buffers: Sequence[loops.Buffer], position: tuple[Any, Any, Any, Any], lanes: int
    ) -> Any:
        """The vector for `position` (image, block, row, column), given the anchor's `result` there.

        With more `lanes` than an image has, those of neighbouring pixels, the first at `position`, one after the other.
        """
        values: list[Any] = []
        uses, vectors = self._uses(), Vectors(lanes, self.keeps_nans, self.dtype, self.dot in _ROUNDS, self.dot == DOT)
        for number, step in enumerate(self.steps):
            operands = [self._operand(o, result, values, buffers, position, lanes) for o in step.operands]
            value = apply(step.function, step.parameters, operands, vectors)
            values.append(_kept(value, lanes) if uses[number] > 1 else value)
        return values[-1] if values else result

    def _operand(
        self,
        operand: Operand,
        result: Any,
        values: Sequence[Any],
        buffers: Sequence[loops.Buffer],
        position: tuple[Any, Any, Any, Any],
        lanes: int,
    ) -> Any:
        if operand.kind == "anchor":
            return self._computed(result, lanes)
        if operand.kind == "step":
            return values[operand.index]
        if operand.kind == "number":
            return loops.number(operand.value, lanes, self.dtype)
        leaf, buffer = self.leaves[operand.index], buffers[operand.index]
        if leaf.lanes == 1 and leaf.repeats:  # Where a vector is pixels of a plane, it is one number for all of them.
            return loops.broadcast(self._computed(loops.load(buffer, leaf.offset(*position)), 1), lanes)
        if leaf.column == 0 and leaf.lanes < lanes:
            once = self._computed(loops.load(buffer, leaf.offset(*position), leaf.lanes), leaf.lanes)
            return loops.picked([_kept(once, leaf.lanes)] * (lanes // leaf.lanes), range(lanes))
        return self._computed(loops.load(buffer, leaf.offset(*position), lanes), lanes)

    def _computed(self, value: Any, lanes: int) -> Any:
        """`value` in the type that it is computed with in registers."""
        return loops.converted(value, "int32" if loops.is_integer(value) else self.dtype, lanes)

    def _uses(self) -> list[int]:
        counts = [0] * len(self.steps)
        for step in self.steps:
            for operand in step.operands:
                if operand.kind == "step":
                    counts[operand.index] += 1
        return counts


def _kept(value: Any, lanes: int) -> Any:
    """`value` in a register, so that reading it twice does not compute it twice."""
    register = loops.local(lanes, loops.element_type(value))
    loops.store(register, 0, value, lanes)
    return loops.load(register, 0, lanes)
