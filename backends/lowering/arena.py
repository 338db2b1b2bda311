"""Values between kernels in one block of memory, the arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm import relax
from tvm.ir import GlobalVar

from ..dtypes import tensor_bytes
from .memory_plan import Interval, largest_live_set, plan_memory

__all__ = ["Arena", "Slot", "plan_arena"]


@dataclass(frozen=True)
class Slot:
    """A value's place: bytes from the start of the arena, and how it is seen there."""

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """In bytes."""
        return tensor_bytes(self.shape, self.dtype)


@dataclass(frozen=True)
class Arena:
    """Where the values of one run lie.

    Attributes:
        slots: of every value that only kernels see. Outputs are not among them: they outlive the run.
        bytes: of the whole block.
        live_bytes: of the largest set of values that are needed at the same time: no block can be smaller.
        alignment: of every slot, in bytes.
    """

    slots: tuple[Slot, ...]
    bytes: int
    live_bytes: int
    alignment: int


def plan_arena(main: Any, alignment: int) -> tuple[relax.Function, Arena]:
    """`main` (a flat list of calls) with each value that does not leave it as a further parameter, and their places."""
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    memory = _Memory(bindings, main.body.body)
    steps = memory.steps
    planned = {var: span for var, span in memory.spans.items() if not memory.leaves(var)}
    unplaced = [_slot(steps[first]) for first, _ in planned.values()]
    intervals = [Interval(slot.size, *span) for slot, span in zip(unplaced, planned.values(), strict=True)]
    offsets, total = plan_memory(intervals, alignment)
    slots = tuple(replace(slot, offset=offset) for slot, offset in zip(unplaced, offsets, strict=True))
    kept = [binding for binding in bindings if binding.var not in planned]
    body = relax.SeqExpr([relax.BindingBlock(kept)], main.body.body)
    function = relax.Function([*main.params, *planned], body, main.ret_ty, main.is_pure, main.attrs)
    return function, Arena(slots, total, largest_live_set(intervals), alignment)


_Owners = frozenset[Any] | tuple["_Owners", ...]
"""The allocations whose memory a value may share; of a tuple, field by field."""


class _Memory:
    """Who shares whose memory, and from which step to which it is in use."""

    def __init__(self, bindings: Sequence[Any], result: Any) -> None:
        self.steps = [binding.value for binding in bindings]
        self.spans: dict[Any, tuple[int, int]] = {}
        self._owners: dict[Any, _Owners] = {}
        for step, binding in enumerate(bindings):
            self._owners[binding.var] = self._bound(binding.var, binding.value, step)
        self._leaving = _flat(self._of(result))

    def leaves(self, var: Any) -> bool:
        """Whether somebody may still read the value after the run."""
        return var in self._leaving

    def _bound(self, var: Any, value: Any, step: int) -> _Owners:
        if _allocates(value):
            self.spans[var] = (step, step)
            return frozenset({var})
        found = self._of(value)
        if not isinstance(value, relax.Call):
            return found  # Another name for a value is no use of it.
        for owner in _flat(found):
            self.spans[owner] = (self.spans[owner][0], step)
        # A kernel returns nothing. Of anything else it is not known what it keeps of its arguments.
        return frozenset() if isinstance(value.op, GlobalVar) else _flat(found)

    def _of(self, expression: Any) -> _Owners:
        if isinstance(expression, relax.Var):
            return self._owners.get(expression, frozenset())
        if isinstance(expression, relax.Tuple):
            return tuple(self._of(field) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            found = self._of(expression.tuple_value)
            return found[expression.index] if isinstance(found, tuple) else found
        if isinstance(expression, relax.Call):
            return tuple(self._of(argument) for argument in expression.args)
        return frozenset()


def _flat(owners: _Owners) -> frozenset[Any]:
    return frozenset().union(*map(_flat, owners)) if isinstance(owners, tuple) else owners


def _allocates(value: Any) -> bool:
    """Whether it is memory for a tensor whose size is known."""
    if not isinstance(value, relax.Call) or getattr(value.op, "name", "") != "relax.builtin.alloc_tensor":
        return False
    return all(hasattr(extent, "value") for extent in value.args[0].values)


def _slot(call: Any) -> Slot:
    """What an allocation is of."""
    return Slot(0, tuple(int(extent) for extent in call.args[0].values), str(call.args[1].value))
