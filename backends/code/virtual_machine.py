"""A compiled library with its weights, its state and its memory, run by TVM's virtual machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import tvm
from tvm import relax

from ..dtypes import tensor_bytes, torch_dtype
from ..lowering.arena import Arena, Slot
from ..signature import copied
from ..state import State

__all__ = ["VirtualMachine"]


class VirtualMachine:
    """Runs a model on this machine. All runs use one arena and one state, so one call runs at a time."""

    def __init__(self, module: Any, weights: Sequence[Any], arena: Arena, state: Sequence[State] = ()) -> None:
        self._machine = relax.VirtualMachine(module, tvm.cpu())
        self._main = self._machine["main"]
        self._kept = [(entry.initial.clone(), entry.initial) for entry in state]
        self._rest = (*(tvm.runtime.from_dlpack(kept) for kept, _ in self._kept), *weights, *_tensors(arena))
        self._weights = [_span(torch.from_dlpack(weight)) for weight in weights]

    def __call__(self, *inputs: Any) -> Any:
        """The outputs for TVM's tensors: one tensor, or several."""
        return self._main(*inputs, *self._rest)

    def owned(self, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Outputs that can be written to: copies of those that are a weight, an input, or an output before, as it is."""
        lent, found = [*self._weights, *map(_span, inputs)], []
        for output in outputs:
            begin, _ = span = _span(output)
            found.append(copied(output) if any(low <= begin < high for low, high in lent) else output)
            lent.append(span)
        return tuple(found)

    def watch(self, instrument: Callable[..., int]) -> None:
        """Has `instrument` called before and after every call of a kernel, as TVM's ``set_instrument`` says."""
        self._machine.set_instrument(instrument)

    def reset(self) -> None:
        """Makes the state what it was before the first call."""
        for kept, initial in self._kept:
            kept.copy_(initial)

    def follow(self, other: VirtualMachine) -> None:
        """Makes the state that of another machine of the same model."""
        for (kept, _), (value, _) in zip(self._kept, other._kept, strict=True):
            kept.copy_(value)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a contiguous tensor lies in memory."""
    begin = tensor.data_ptr()
    return begin, begin + tensor.nbytes


def _tensors(arena: Arena) -> list[Any]:
    """The values' tensors, over one block of new memory."""
    block = torch.empty(arena.bytes + arena.alignment, dtype=torch.uint8)
    # A view of another dtype must begin at a multiple of its size, counted from the storage's begin.
    aligned = torch.frombuffer(block.numpy(), dtype=torch.uint8, offset=-block.data_ptr() % arena.alignment)
    return [_tensor(aligned, slot) for slot in arena.slots]


def _tensor(block: torch.Tensor, slot: Slot) -> Any:
    kind, size = torch_dtype(slot.dtype), tensor_bytes(slot.shape, slot.dtype)
    flat = block[slot.offset : slot.offset + size].view(kind) if size else torch.empty(0, dtype=kind)
    return tvm.runtime.from_dlpack(flat.reshape(slot.shape))
