"""The last kernels of a model with state: they copy what each buffer is to hold into the buffer's own memory.

So a runtime only keeps that memory between calls, and nothing that a call gives out lies in it. The old values may be read
until then, and what is still in them at the end is moved out first.
"""

from __future__ import annotations

from typing import Any

from tvm import IRModule, relax
from tvm.ir import GlobalVar

from ..kernels.relayout import copy_kernel

__all__ = ["write_back"]


def write_back(module: IRModule, first: int, count: int) -> IRModule:
    """`module` with a ``main`` that leaves its last `count` results in its parameters from `first` on, and gives the others.

    ``main`` is a flat list of kernel calls with explicit memory, and returns a tuple.
    """
    return _Writer(module, first, count).module() if count else module


class _Writer:
    def __init__(self, module: IRModule, first: int, count: int) -> None:
        self._main = module["main"]
        self._places = list(self._main.params[first : first + count])
        self._bindings = [binding for block in self._main.body.blocks for binding in block.bindings]
        self._values = {binding.var: binding.value for binding in self._bindings}
        self._builder = relax.BlockBuilder(module)
        self._kernels: dict[Any, GlobalVar] = {}

    def module(self) -> IRModule:
        results = list(self._bound(self._main.body.body).fields)
        self._bindings = [binding for binding in self._bindings if binding.var != self._main.body.body]
        given, left = results[: -len(self._places)], results[-len(self._places) :]
        given = [self._moved(value) if self._in_places(value) else value for value in given]
        left = [
            value if self._bound(value) is place or not self._in_places(value) else self._moved(value)
            for value, place in zip(left, self._places, strict=True)
        ]
        for value, place in zip(left, self._places, strict=True):
            if self._bound(value) is not place:
                self._copy(value, place)
        kind = relax.TupleType([value.ty for value in given])
        answer = relax.Var("answer", kind)
        self._bindings.append(relax.VarBinding(answer, relax.Tuple(given)))
        body = relax.SeqExpr([relax.BindingBlock(self._bindings)], answer)
        main = relax.Function(self._main.params, body, kind, self._main.is_pure, self._main.attrs)
        module = self._builder.get()
        module.update_func(module.get_global_var("main"), main)
        return module

    def _bound(self, value: Any) -> Any:
        """What a variable is another name for."""
        while value in self._values and isinstance(self._values[value], relax.Var | relax.Tuple):
            value = self._values[value]
        return value

    def _in_places(self, value: Any) -> bool:
        """Whether a value may lie in the memory of a buffer."""
        value = self._bound(value)
        if value in self._places:
            return True
        call: Any = self._values.get(value)
        if isinstance(call, relax.TupleGetItem):
            return self._in_places(call.tuple_value)
        viewed = isinstance(call, relax.Call) and not isinstance(call.op, GlobalVar)
        return viewed and any(self._in_places(argument) for argument in call.args if isinstance(argument, relax.Var))

    def _moved(self, value: Any) -> Any:
        """A copy of a value in memory of its own."""
        memory = relax.op.builtin.alloc_tensor(value.ty.shape, str(value.ty.dtype), 0, "global")
        copy = relax.Var(f"moved{len(self._bindings)}", value.ty)
        self._bindings.append(relax.VarBinding(copy, self._builder.normalize(memory)))
        self._copy(value, copy)
        return copy

    def _copy(self, value: Any, place: Any) -> None:
        shape, dtype = tuple(int(extent) for extent in value.ty.shape), str(value.ty.dtype)
        if (shape, dtype) not in self._kernels:
            kernel = copy_kernel(shape, dtype, "copy")
            self._kernels[shape, dtype] = self._builder.add_func(kernel, "copy")
        call = self._builder.normalize(relax.Call(self._kernels[shape, dtype], [value, place]))
        self._bindings.append(relax.VarBinding(relax.Var("_", call.ty), call))
