"""Parameters, multiply-accumulates and bytes of a graph, before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from torch import fx

from .dependency import DependencyView
from .layers import Layer
from .liveness import Liveness
from .outcome import LayerWidth, Size
from .rules import Rule, layer_of, rule_for
from .rules.kernel_blocks import Selection
from .values import Operation, attribute, example_shape, is_tensor, shape_of

__all__ = ["examples_counted", "layer_macs", "layer_widths", "module_size", "total_size"]

Shape = Callable[[fx.Node], tuple[int, ...]]


def module_size(module: fx.GraphModule, macs: int) -> Size:
    """The size of what a module stores, with `macs` counted elsewhere."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    tensors = [*module.parameters(), *module.buffers()]
    return Size(parameters, macs, sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def total_size(view: DependencyView, module: fx.GraphModule, live: Liveness | None = None) -> Size:
    """Size of `module`; MACs by the view's operators, with the shapes that are left when `live` is given."""
    shape = _shapes(view.module, view.operations, live)
    macs = sum(rule_for(op.name).macs(op, shape) for op in view.operations.values() if _counts(op))
    return module_size(module, macs)


def examples_counted(module: fx.GraphModule) -> int:
    """How many examples a captured module's MACs are of: the first axis of its first input at capture; 1 if it has none."""
    for node in module.graph.nodes:
        if node.op == "placeholder" and is_tensor(node):
            shape = example_shape(module, node)
            return shape[0] if shape else 1
    return 1


def layer_macs(module: fx.GraphModule, operations: Mapping[fx.Node, Operation]) -> dict[str, int]:
    """Multiply-accumulates of all calls with each stored weight of a convolution or linear layer, by the weight's name."""
    shape, found = _shapes(module, operations, None), dict[str, int]()
    for op in operations.values():
        layer = layer_of(op)
        if layer is not None and layer.weight.op == "get_attr":
            name = str(layer.weight.target)
            found[name] = found.get(name, 0) + rule_for(op.name).macs(op, shape)
    return found


def layer_widths(view: DependencyView, live: Liveness) -> tuple[LayerWidth, ...]:
    """Every convolution and linear layer with a stored weight, before and after."""
    before, after = (_shapes(view.module, view.operations, known) for known in (None, live))
    widths = []
    for op in view.operations.values():
        layer = layer_of(op)
        if layer is None or op.tensor("weight") is None:
            continue
        sizes = [_layer_size(view, op, layer, shape) for shape in (before, after)]
        name = str(layer.weight.target).rpartition(".")[0] or str(layer.weight.target)
        widths.append(LayerWidth(name, op.name, before(op.node)[layer.axis], after(op.node)[layer.axis], *sizes))
    return tuple(widths)


def _counts(op: Operation) -> bool:
    return type(rule_for(op.name)).macs is not Rule.macs and (is_tensor(op.node) or len(op.outputs) > 1)


def _layer_size(view: DependencyView, op: Operation, layer: Layer, shape: Shape) -> Size:
    stored = [node for node in (layer.weight, layer.bias) if node is not None and node.op == "get_attr"]
    numbers = [int(np.prod(shape(node))) for node in stored]
    widths = [attribute(view.module, str(node.target)).element_size() for node in stored]
    size = sum(number * width for number, width in zip(numbers, widths, strict=True))
    return Size(sum(numbers), rule_for(op.name).macs(op, shape), size)


def _shapes(module: fx.GraphModule, operations: Mapping[fx.Node, Operation], live: Liveness | None) -> Shape:
    """Shapes of nodes as plain numbers; a dynamic size counts as what it was at capture."""
    within = {} if live is None else dict(_widths_of_groups(operations, live))

    def shape(node: fx.Node) -> tuple[int, ...]:
        sizes = list(example_shape(module, node))
        if live is not None:
            for axis, size in enumerate(shape_of(node)):
                if isinstance(size, int):
                    sizes[axis] = int(live.kept(node, axis).sum())
        if node in within:
            sizes[1] = within[node]
        return tuple(sizes)

    return shape


def _widths_of_groups(operations: Mapping[fx.Node, Operation], live: Liveness) -> Iterator[tuple[fx.Node, int]]:
    """The second axis of weights of grouped convolutions, which is of one group's channels and no axis of channels itself."""
    for op in operations.values():
        layer = layer_of(op)
        if layer is None or layer.groups == 1:
            continue
        kept_in = live.kept(layer.source, layer.axis).reshape(layer.groups, -1)
        kept_out = live.kept(op.node, layer.axis).reshape(layer.groups, -1)
        if kept_out.any():
            selection = Selection.of(kept_in, kept_out)
            yield layer.weight, (selection.rows if layer.transposed else selection.columns).shape[1]
