"""A plan as text: a line a step, with the kernel's family, what it reads, and how its result lies in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..graph.nodes import Node
from ..graph.text import by, fields_text, names_of, runs
from ..kernels.epilogue import Epilogue, Operand
from ..kernels.image import View
from .steps import Kept, KernelPlan, Placed, Value

__all__ = ["plan_text"]


def plan_text(plan: KernelPlan) -> str:
    """The machine's vectors, the inputs, and the steps under the names that texts of the graph have for their nodes; a value
    that is laid out anew has the kernel's family behind it (``x.pack``).
    """
    names: dict[Node | Placed | Kept, str] = dict(names_of(plan.graph).items())
    computed: set[Node] = set(plan.graph.inputs)
    taken: dict[str, int] = {}
    lines = [f"vectors of {plan.machine.vector_bytes} bytes"]
    lines += [f"{names[node]} = input {by(node.shape)} {node.dtype}" for node in plan.graph.inputs]
    for step in plan.steps:
        name = names[step.node]
        if isinstance(step, Placed) and step.node in computed:
            name = f"{name}.{step.spec.family}"
        computed.add(step.node)
        taken[name] = taken.get(name, 0) + 1
        names[step] = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"
        lines.append(f"{names[step]} = {_step(step, names)}")
    return "\n".join([*lines, f"return {_values(plan.results, names)}"])


def _step(step: Placed | Kept, names: dict[Node | Placed | Kept, str]) -> str:
    if isinstance(step, Kept):
        kind = f"foreign {step.node.name}" if step.node.op == "foreign" else step.node.op
        value = "tuple" if step.node.dtype == "tuple" else f"{by(step.node.shape)} {step.node.dtype}"
        return f"{kind}({_values(step.inputs, names)}) {value}"
    read = _values((*step.sources, *step.tables, *step.leaves), names)
    details = [*_layer(step), *_spec(step.spec)]
    return f"{step.spec.family}({read}) {', '.join([by(step.shape), *details])}"


def _values(values: Sequence[Value], names: dict[Node | Placed | Kept, str]) -> str:
    return ", ".join(_value(value, names) for value in values)


def _value(value: Value, names: dict[Node | Placed | Kept, str]) -> str:
    return f"{value.dtype}[{by(value.shape)}]" if isinstance(value, np.ndarray) else names[value]


def _layer(step: Placed) -> Iterator[str]:
    """The weights' shape, and the slots of the channels that they are packed for."""
    if step.layer is not None:
        yield f"weights {by(step.layer.convolution.weights.kernel.shape)} for slots {runs(step.layer.slots.tolist())}"
        if step.layer.task is not None:
            yield "by default"


def _spec(spec: Any) -> Iterator[str]:
    """Images and epilogues of a specification in short, the rest as it is."""
    shown = []
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        views = value if isinstance(value, tuple) else (value,)
        shown.append(field.name)
        if views and all(isinstance(view, View) for view in views):
            yield f"{field.name} {' '.join(map(_view, views))}"
        elif isinstance(value, Epilogue):
            yield from _epilogue(value)
        elif dataclasses.is_dataclass(value):
            yield f"{field.name} {' '.join(fields_text(value))}"
        else:
            shown.pop()
    yield from fields_text(spec, *shown)


def _view(view: View) -> str:
    """``batch x blocks x height x width x lanes``, the type, and what is unlike an image without a border."""
    shape = by((view.batch, view.blocks, view.height, view.width, view.lanes))
    border = f" with a border of {view.halo}{f' of {view.border}' if view.border else ''}" if view.halo else ""
    border += " left and right" if view.flat and view.halo else ""
    return f"{shape} {view.dtype}" + border + (" the same for all pixels" if view.repeats else "")


def _epilogue(epilogue: Epilogue) -> Iterator[str]:
    for number, step in enumerate(epilogue.steps):
        operands = [*map(_operand, step.operands), *map(repr, step.parameters)]
        yield f"step{number} {step.function}({', '.join(operands)})"
    yield from (f"leaf{number} {_view(leaf)}" for number, leaf in enumerate(epilogue.leaves))


def _operand(operand: Operand) -> str:
    if operand.kind == "number":
        return repr(operand.value)
    return operand.kind if operand.kind == "anchor" else f"{operand.kind}{operand.index}"
