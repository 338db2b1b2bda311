"""What a rule may change in the smaller graph: arguments, calls, and the tensors it stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from .liveness import KnownConstants, Liveness
from .values import Operation, attribute, shape_of

__all__ = ["Edit", "remaining_shape", "set_value"]

Bools = NDArray[np.bool_]


class Edit:
    """What a rule may do to the new graph while it is being made. The old graph and its tensors are only read."""

    def __init__(
        self,
        module: fx.GraphModule,
        stored: Mapping[str, fx.Node],
        live: Liveness,
        graph: fx.Graph,
        copies: Mapping[fx.Node, fx.Node],
    ) -> None:
        """`stored`: the node of `module` that reads each stored tensor; `copies`: the node of `graph` for each of its nodes."""
        self._module = module
        self._stored = stored
        self._live = live
        self._graph = graph
        self._copies = copies
        self._tensors: dict[str, torch.Tensor] = {}

    @property
    def facts(self) -> KnownConstants:
        """The constants known about the old graph."""
        return self._live.facts

    def kept(self, node: fx.Node, axis: int) -> Bools:
        """Which positions of an old node's axis stay."""
        return self._live.kept(node, axis)

    def new(self, node: fx.Node) -> fx.Node:
        """The new node that stands for an old one."""
        return self._copies[node]

    def set_argument(self, op: Operation, name: str, value: Any) -> None:
        """Sets an argument of the new call by its name in the operator's schema. Old nodes in `value` become new ones."""
        node, value = self._copies[op.node], self._translated(value)
        schema = op.node.target._schema  # type: ignore[union-attr]
        for position, argument in enumerate(schema.arguments):
            if argument.name != name:
                continue
            if argument.kwarg_only or name in node.kwargs:
                node.update_kwarg(name, value)
            else:
                args = list(node.args)
                args.extend(
                    node.kwargs.get(missing.name, missing.default_value if missing.has_default_value() else None)
                    for missing in schema.arguments[len(args) : position + 1]
                )
                args[position] = value
                node.args = tuple(args)
                node.kwargs = {key: kept for key, kept in node.kwargs.items() if key != name}

    def set_call(self, op: Operation, target: Any, args: tuple[Any, ...]) -> None:
        """Replaces the new call by another operator's. Old nodes in `args` become new ones."""
        node = self._copies[op.node]
        node.target, node.args, node.kwargs = target, self._translated(args), {}

    def insert(
        self, op: Operation, target: Any, args: tuple[Any, ...], sizes: Mapping[int, int] | None = None
    ) -> fx.Node:
        """Puts another call before `op`'s and gives its new node. Old nodes in `args` become new ones.

        Its result is shaped as what is left of `op`'s, but for the axes in `sizes`.
        """
        shape = remaining_shape(self._live, op.node)
        for axis, size in (sizes or {}).items():
            shape[axis] = size
        with self._graph.inserting_before(self._copies[op.node]):
            node = self._graph.call_function(target, self._translated(args))
        node.meta = dict(op.node.meta)
        set_value(node, op.example.new_empty(shape))
        return node

    def _translated(self, value: Any) -> Any:
        return fx.map_arg(value, lambda node: self._copies.get(node, node))

    def parameter(self, node: fx.Node) -> torch.Tensor:
        """The tensor that replaces the one an old ``get_attr`` node reads: sliced, unless a rule has set it."""
        name = str(node.target)
        if name not in self._tensors:
            self._tensors[name] = self._sliced(node)
        return self._tensors[name]

    def set_parameter(self, node: fx.Node, tensor: torch.Tensor) -> None:
        """Sets that tensor."""
        self._tensors[str(node.target)] = tensor

    def add_parameter(self, op: Operation, beside: str, name: str, tensor: torch.Tensor) -> fx.Node:
        """Stores a new trainable tensor in the module of `beside` and gives the new node that reads it."""
        path = beside.rpartition(".")[0]
        return self._add(op, f"{path}.{name}" if path else name, torch.nn.Parameter(tensor))

    def add_buffer(self, op: Operation, name: str, tensor: torch.Tensor) -> fx.Node:
        """Stores a new constant tensor and gives the new node that reads it."""
        return self._add(op, name, tensor)

    def _add(self, op: Operation, name: str, tensor: torch.Tensor) -> fx.Node:
        while name in self._stored or name in self._tensors:
            name += "_"
        self._tensors[name] = tensor
        with self._graph.inserting_before(self._copies[op.node]):
            node = self._graph.get_attr(name)
        node.meta["val"] = op.example.new_empty(tensor.shape, dtype=tensor.dtype)
        return node

    @property
    def added(self) -> dict[str, torch.Tensor]:
        """The tensors that the old module does not store, by name."""
        return {name: tensor for name, tensor in self._tensors.items() if name not in self._stored}

    def _sliced(self, node: fx.Node) -> torch.Tensor:
        tensor = attribute(self._module, str(node.target)).detach()
        for axis in range(tensor.dim()):
            kept = self.kept(node, axis)
            if not kept.all():
                tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(kept)).to(tensor.device))
        return tensor


def remaining_shape(live: Liveness, node: fx.Node) -> list[Any]:
    """What is left of a node's shape; dynamic sizes are as they were."""
    return [
        int(live.kept(node, axis).sum()) if isinstance(size, int) else size for axis, size in enumerate(shape_of(node))
    ]


def set_value(node: fx.Node, value: Any) -> None:
    """Sets the stand-in that tells a new node's shape and type."""
    node.meta = {**node.meta, "val": value}
    node.meta.pop("tensor_meta", None)
