"""Parameters, multiply-accumulates and bytes of a graph, before and after."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import fx

from .dependency import DependencyView
from .liveness import Liveness
from .outcome import LayerWidth, Size
from .rules import Rule, rule_for
from .values import Operation, attribute, example_shape, is_tensor, shape_of

__all__ = ["layer_widths", "module_size", "total_size"]

Shape = Callable[[fx.Node], tuple[int, ...]]


def module_size(module: fx.GraphModule, macs: int) -> Size:
    """The size of what a module stores, with `macs` counted elsewhere."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    tensors = [*module.parameters(), *module.buffers()]
    return Size(parameters, macs, sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def total_size(view: DependencyView, module: fx.GraphModule, live: Liveness | None = None) -> Size:
    """Size of `module`; MACs by the view's operators, with the shapes that are left when `live` is given."""
    shape = _shapes(view.module, live)
    macs = sum(rule_for(op.name).macs(op, shape) for op in view.operations.values() if _counts(op))
    return module_size(module, macs)


def layer_widths(view: DependencyView, live: Liveness) -> tuple[LayerWidth, ...]:
    """Every operator with a stored weight that MACs are counted for, before and after."""
    before, after = _shapes(view.module, None), _shapes(view.module, live)
    layers = []
    for op in view.operations.values():
        weight = op.get("weight")
        if not _counts(op) or not isinstance(weight, fx.Node) or op.tensor("weight") is None:
            continue
        axis = _channel_axis(op)
        sizes = [_layer_size(view, op, shape) for shape in (before, after)]
        name = str(weight.target).rpartition(".")[0] or str(weight.target)
        layers.append(LayerWidth(name, op.name, before(op.node)[axis], after(op.node)[axis], *sizes))
    return tuple(layers)


def _counts(op: Operation) -> bool:
    return type(rule_for(op.name)).macs is not Rule.macs and is_tensor(op.node)


def _channel_axis(op: Operation) -> int:
    return -1 if op.name == "aten.linear" else len(shape_of(op.node)) - len(shape_of(op["weight"])) + 1


def _layer_size(view: DependencyView, op: Operation, shape: Shape) -> Size:
    stored = [
        op[name] for name in ("weight", "bias") if isinstance(op.get(name), fx.Node) and op.tensor(name) is not None
    ]
    numbers = [int(np.prod(shape(node))) for node in stored]
    widths = [attribute(view.module, str(node.target)).element_size() for node in stored]
    size = sum(number * width for number, width in zip(numbers, widths, strict=True))
    return Size(sum(numbers), rule_for(op.name).macs(op, shape), size)


def _shapes(module: fx.GraphModule, live: Liveness | None) -> Shape:
    """Shapes of nodes as plain numbers; a dynamic size counts as what it was at capture."""

    def shape(node: fx.Node) -> tuple[int, ...]:
        sizes = list(example_shape(module, node))
        if live is not None:
            for axis, size in enumerate(shape_of(node)):
                if isinstance(size, int):
                    sizes[axis] = int(live.kept(node, axis).sum())
        return tuple(sizes)

    return shape
