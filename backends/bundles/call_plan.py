"""A lowered model as a list of kernel calls, for code that runs them without TVM's machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm import relax
from tvm.ir import GlobalVar

from ...frontend.base.errors import InputError
from ..artifact import Artifact

__all__ = ["CallPlan", "KernelCall", "Tensor", "call_plan"]


@dataclass(frozen=True)
class Tensor:
    """A value: its memory's name (``input0``, ``output0``, ``state0``, ``weights``, ``arena``; before it is decided where
    outputs are written, ``result0``), and how it is seen there.
    """

    place: str
    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class KernelCall:
    kernel: str
    arguments: tuple[Tensor, ...]


@dataclass(frozen=True)
class CallPlan:
    """The model as a list of kernel calls."""

    calls: tuple[KernelCall, ...]
    results: tuple[Tensor, ...]


def call_plan(artifact: Artifact, offsets: Sequence[int]) -> CallPlan:
    """The calls of ``main`` in order, with outputs written where the caller wants them if that can be.

    Args:
        offsets: of the weights in their file.

    Raises:
        InputError: the model needs something that only TVM's machine does.
    """
    main, reader = artifact.scheduled["main"], _Reader()
    for parameter, place, offset in zip(main.params, *_parameter_places(artifact, offsets), strict=True):
        reader.values[parameter] = Tensor(place, offset, _shape(parameter.ty.shape), str(parameter.ty.dtype))
    for block in main.body.blocks:
        for binding in block.bindings:
            reader.values[binding.var] = reader.value(binding.value)
    found = reader.value(main.body.body)
    return _direct(CallPlan(tuple(reader.calls), found if isinstance(found, tuple) else (found,)))


class _Reader:
    """Reads expressions of ``main`` in their order: what they are as tensors, and the kernels that they call."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.calls: list[KernelCall] = []
        self._outside = 0

    def value(self, expression: Any) -> Any:
        """A tensor or a tuple of them; nothing for the call of a kernel. Raises InputError as `call_plan`."""
        if isinstance(expression, relax.Tuple):
            return tuple(self.value(entry) for entry in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            return self.value(expression.tuple_value)[expression.index]
        if isinstance(expression, relax.Var):
            return self.values[expression]
        if isinstance(expression, relax.Call):
            return self._call(expression)
        raise InputError(_unknown(type(expression).__name__))

    def _call(self, call: Any) -> Any:
        if isinstance(call.op, GlobalVar):
            arguments = tuple(self.value(argument) for argument in call.args)
            self.calls.append(KernelCall(call.op.name_hint, arguments))
            return ()
        name = getattr(call.op, "name", str(call.op))
        if name == "relax.builtin.alloc_tensor":
            place = f"result{self._outside}"
            self._outside += 1
            return Tensor(place, 0, _shape(call.args[0]), str(call.args[1].value))
        if name in ("relax.reshape", "relax.memory.view"):
            source = self.value(call.args[0])
            return Tensor(source.place, source.offset, _shape(call.args[1]), source.dtype)
        raise InputError(_unknown(name))


def _parameter_places(artifact: Artifact, offsets: Sequence[int]) -> tuple[list[str], list[int]]:
    """The memory of each parameter of ``main``, and the offset in it."""
    slots = artifact.arena.slots
    own = [f"input{i}" for i in range(len(artifact.inputs))] + [f"state{i}" for i in range(len(artifact.state))]
    names = own + ["weights"] * len(offsets) + ["arena"] * len(slots)
    return names, [*[0] * len(own), *offsets, *(slot.offset for slot in slots)]


def _unknown(name: str) -> str:
    return f"the model needs '{name}' of TVM's runtime, so there is no way without it; use --runtime static"


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in shape)


def _direct(plan: CallPlan) -> CallPlan:
    """`plan` with every value that is not in the arena where the caller wants an output."""
    wanted = {result.place: f"output{i}" for i, result in reversed(list(enumerate(plan.results)))}

    def move(tensor: Tensor) -> Tensor:
        place = wanted[tensor.place] if tensor.place.startswith("result") else tensor.place
        return replace(tensor, place=place)

    calls = tuple(KernelCall(call.kernel, tuple(map(move, call.arguments))) for call in plan.calls)
    return CallPlan(calls, tuple(map(move, plan.results)))
