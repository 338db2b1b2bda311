"""The weights that structures of zeros can be in: of convolutions, linear and recurrent layers, seen as structures see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, fx

from .layers import Layer
from .operations import operations_of
from .rules import layer_of
from .rules.kernel_blocks import blocks_of, stored_form
from .rules.recurrent_cell import recurrent_tensors
from .structures import LayerShape
from .values import MOVED, REMADE, Operation, attribute, shape_of

__all__ = ["WeightView", "weight_views", "with_other_names"]


@dataclass(frozen=True, eq=False)
class WeightView:
    """A stored weight as filters x input channels of a group x kernel, whatever the order it is stored in.

    Attributes:
        name: of the parameter.
        shape: of the weight as it is seen.
        layer: the convolution or linear layer that reads it first; None for a matrix of a recurrent layer.
        unlike: why zeros cannot be seen so, or would not stay: calls that read it differently; empty where they can.
        first: whether no weighted layer comes before it.
        last: whether no weighted layer comes after it.
        also: other names of the parameter, see `with_other_names`.
        source: another weight of these whose entries it has in another order, such as the encoder's that a decoder reads
            transposed; empty where there is none.
    """

    name: str
    shape: LayerShape
    layer: Layer | None
    unlike: str = ""
    first: bool = False
    last: bool = False
    also: tuple[str, ...] = ()
    source: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return self.name, *self.also

    @property
    def convolution(self) -> bool:
        return self.layer is not None and self.layer.convolution

    @property
    def depthwise(self) -> bool:
        return self.layer is not None and self.layer.depthwise

    def seen(self, stored: Tensor) -> Tensor:
        """A tensor of the stored weight's shape, such as the weight, as structures see it."""
        if self.layer is None or (self.layer.groups == 1 and not self.layer.transposed):
            return stored
        return blocks_of(stored, self.layer).reshape(self.shape.filters, self.shape.channels, *self.shape.taps)

    def stored(self, seen: Tensor) -> Tensor:
        """The inverse of `seen`."""
        if self.layer is None or (self.layer.groups == 1 and not self.layer.transposed):
            return seen
        groups = self.shape.groups
        blocks = seen.reshape(groups, self.shape.filters_of_group, self.shape.channels, self.shape.positions)
        return stored_form(blocks, self.layer)


def weight_views(module: fx.GraphModule) -> tuple[WeightView, ...]:
    """The floating-point weights of all convolutions, linear layers and recurrent layers of a canonical module, in order."""
    readers: dict[str, list[tuple[Operation, Layer | None]]] = {}
    moved = {str(node.target): node.meta.get(MOVED) for node in module.graph.nodes if node.op == "get_attr"}
    for operation in operations_of(module).values():
        for name, layer in _weights_of(operation):
            if attribute(module, name).is_floating_point():
                readers.setdefault(name, []).append((operation, layer))
    nodes = {operation.node for calls in readers.values() for operation, _ in calls}
    behind, ahead = _reached(module, nodes, forward=True), _reached(module, nodes, forward=False)
    views = (
        _view(module, name, calls, any(not behind[o.node] for o, _ in calls), any(not ahead[o.node] for o, _ in calls))
        for name, calls in readers.items()
    )
    return tuple(
        replace(view, source=source)
        if (source := moved[view.name]) and source in readers.keys() - {view.name}
        else view
        for view in views
    )


def with_other_names(views: Iterable[WeightView], module: fx.GraphModule) -> tuple[WeightView, ...]:
    """Views of a canonical module with all names that the captured one has for their parameters: tied weights have several,
    of which the canonical form keeps one.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    alike = {name: same for same in names.values() for name in same}
    return tuple(
        replace(view, also=tuple(name for name in alike.get(view.name, ()) if name != view.name)) for view in views
    )


def _weights_of(operation: Operation) -> Iterator[tuple[str, Layer | None]]:
    """The stored weights of a call, each with the layer that it is, if it is one."""
    layer = layer_of(operation)
    if layer is not None:
        if layer.weight.op == "get_attr":
            yield str(layer.weight.target), layer
        return
    places = recurrent_tensors(operation)
    yield from ((str(node.target), None) for node in places if node.op == "get_attr" and len(shape_of(node)) == 2)


def _view(
    module: fx.GraphModule, name: str, calls: list[tuple[Operation, Layer | None]], first: bool, last: bool
) -> WeightView:
    layer = calls[0][1]
    groups, transposed = _orientation(layer)
    filters, channels, *taps = attribute(module, name).shape
    if transposed:
        filters, channels = channels * groups, filters // groups
    unlike = ""
    if len({_orientation(other) for _, other in calls}) > 1:
        unlike = "calls that share the weight read it differently"
    elif any(operand.meta.get(REMADE) for operand in calls[0][0].node.all_input_nodes if operand.target == name):
        unlike = "it is computed in every call from a tensor whose zeros are not its own, as standardised weights are"
    shape = LayerShape(filters, channels, tuple(taps), groups)
    return WeightView(name, shape, layer, unlike, first, last)


def _orientation(layer: Layer | None) -> tuple[int, bool]:
    """Groups, and whether the weight is stored with its input channels first."""
    return (1, False) if layer is None else (layer.groups, layer.transposed)


def _reached(module: fx.GraphModule, weighted: set[fx.Node], *, forward: bool) -> Mapping[fx.Node, bool]:
    """Of every node, whether one of the weighted calls is among what it is computed from, or else is computed from it."""
    reached: dict[fx.Node, bool] = {}
    for node in module.graph.nodes if forward else reversed(module.graph.nodes):
        neighbours = node.all_input_nodes if forward else node.users
        reached[node] = any(other in weighted or reached[other] for other in neighbours)
    return reached
