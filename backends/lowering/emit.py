"""Relax of a plan: a ``main`` that calls our kernels, and TVM's operators where the plan keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import IRModule, relax, tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Foreign, Node, Reference
from ..kernels.base import LayerSpec, Spec, Workspaced
from .steps import Choice, Kept, KernelPlan, Placed, PlacedLayer, Value

__all__ = ["emit_module"]

_SAMPLED = 4099
"""Of so many bytes one tells arrays apart before all are compared."""


def emit_module(plan: KernelPlan, choice: Choice | None = None) -> IRModule:
    """A module whose ``main`` carries the plan out, its layers as `choice` says."""
    return _Emitter(plan, choice or {}).module()


class _Emitter:
    def __init__(self, plan: KernelPlan, choice: Choice) -> None:
        self.plan = plan
        self.choice = choice
        self.builder = relax.BlockBuilder()
        self.values: dict[Placed | Kept | Node, Any] = {}
        self.kernels: dict[Spec, Any] = {}
        self.packed: dict[tuple[int, LayerSpec, bytes], list[Any]] = {}
        self.constants: dict[tuple[tuple[int, ...], str, bytes], list[Any]] = {}

    def module(self) -> IRModule:
        graph = self.plan.graph
        parameters = [relax.Var(node.name, relax.TensorType(list(node.shape), node.dtype)) for node in graph.inputs]
        self.values.update(zip(graph.inputs, parameters, strict=True))
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                for step in self.plan.steps:
                    self.values[step] = self._call(step) if isinstance(step, Placed) else self._kept(step)
                results = [self._value(value) for value in self.plan.results]
                output = self.builder.emit_output(relax.Tuple(results) if graph.returns_tuple else results[0])
            self.builder.emit_func_output(output)
        return self.builder.get()

    def _value(self, value: Value) -> Any:
        """The Relax expression of a value."""
        if isinstance(value, np.ndarray):
            return self._constant(value)
        if value not in self.values and isinstance(value, Node):
            self.values[value] = relax.const(value.detail_as(np.ndarray).astype(value.dtype), value.dtype)
        return self.values[value]

    def _constant(self, array: Array) -> Any:
        """The constant of an array; one for all that are equal, such as the weights of a recurrent layer's steps."""
        flat = np.ascontiguousarray(array).reshape(-1).view("uint8")
        alike = self.constants.setdefault((array.shape, str(array.dtype), flat[::_SAMPLED].tobytes()), [])
        for known in alike:
            if np.array_equal(known.value.numpy().reshape(-1).view("uint8"), flat):
                return known
        alike.append(relax.const(array))
        return alike[-1]

    def _call(self, placed: Placed) -> Any:
        """A call of the kernel for a specification, which is built once however often it occurs.

        A workspace is results that nobody reads, so that Relax plans their memory with all the rest.
        """
        spec = placed.spec
        if (layer := placed.layer) is not None:
            spec = chosen = layer.chosen(self.choice)
            packed = self._packed(layer, chosen)
        else:
            packed = [self._value(table) for table in placed.tables]
        read = [[self._value(value) for value in values] for values in (placed.sources, placed.leaves)]
        arguments = [*read[0], *packed, *read[1]]
        kernel = self._kernel(spec)
        result = relax.TensorType(list(placed.shape), placed.result_dtype)
        if not isinstance(spec, Workspaced) or not spec.workspace:
            return self.builder.emit(relax.call_tir(kernel, arguments, result))
        kind = DTYPES[spec.source.dtype].accumulator
        results = [result, *(relax.TensorType([size], kind) for size in spec.workspace)]
        every = self.builder.emit(relax.call_tir(kernel, arguments, results))
        return self.builder.emit(relax.TupleGetItem(every, 0))

    def _packed(self, layer: PlacedLayer, spec: LayerSpec) -> list[Any]:
        """What a layer's kernel reads of its weights, packed once for all layers that share them."""
        key = (id(layer.convolution.weights), spec, layer.slots.tobytes())
        if key not in self.packed:
            self.packed[key] = [self._constant(array) for array in spec.pack(layer.convolution, layer.slots)]
        return self.packed[key]

    def _kernel(self, spec: Spec) -> Any:
        if spec not in self.kernels:
            name = f"{spec.family}_{sum(1 for known in self.kernels if known.family == spec.family)}"
            self.kernels[spec] = self.builder.add_func(spec.function(name), name)
        return self.kernels[spec]

    def _kept(self, kept: Kept) -> Any:
        node, inputs = kept.node, [self._value(value) for value in kept.inputs]
        if node.op == "item":
            return self.builder.emit(relax.TupleGetItem(inputs[0], node.detail_as(int)))
        if node.op == "convert":
            return self.builder.emit(relax.op.astype(inputs[0], node.dtype))
        if node.op in ("reshape", "flatten"):
            return self.builder.emit(relax.op.reshape(inputs[0], node.shape))
        foreign = node.detail_as(Foreign)
        call = foreign.call
        arguments = [self._expression(argument, inputs, node.name) for argument in foreign.arguments]
        return self.builder.emit(relax.Call(call.op, arguments, call.attrs, call.ty_args))

    def _expression(self, argument: Any, inputs: list[Any], name: str) -> Any:
        """An argument of a foreign call."""
        if isinstance(argument, tuple):
            return relax.Tuple([self._expression(field, inputs, name) for field in argument])
        if isinstance(argument, tirx.PrimFunc):
            return self.builder.add_func(argument, name)
        return inputs[argument.index] if isinstance(argument, Reference) else argument
