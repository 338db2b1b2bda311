"""A graph as bytes, for copies in other processes and for ``torch.save``: every node with its arguments and records.

torch.fx itself keeps only generated code and traces it again, which loses shapes, names of modules, and modes.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx._graph_pickler import GraphPickler
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from .base.errors import InputError
from .quantized_operators import LIBRARY, load_quantized_operators

__all__ = ["load_graph", "store_graph"]


class _Pickler(GraphPickler):
    """Functions and classes by the names that they are imported by.

    Where dill is installed torch pickles with it, which writes code itself, and names of dill, for what has no such name and
    for types of Python. That could be read only where dill is, and a function would come back as another one.
    """

    dispatch = pickle._Pickler.dispatch


@dataclass(frozen=True)
class _Reference:
    """Another node, by its place."""

    place: int


@dataclass(frozen=True)
class _Operator:
    """One of those that round, by its name: torch pickles operators of its own libraries only."""

    name: str

    @classmethod
    def of(cls, target: Any) -> Any:
        rounds = isinstance(target, torch._ops.OpOverload) and target.namespace == LIBRARY
        return cls(str(target).partition(".")[2]) if rounds else target

    def found(self) -> Any:
        load_quantized_operators()
        return attrgetter(self.name)(getattr(torch.ops, LIBRARY))


@dataclass(frozen=True)
class _StandIn:
    """A tensor without data whose sizes are fixed."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool


@dataclass(frozen=True)
class _Record:
    """One node without its graph."""

    name: str
    op: str
    target: Any
    args: Any
    kwargs: Any
    meta: dict[str, Any]


def store_graph(graph: fx.Graph) -> bytes:
    """The graph as bytes.

    Raises:
        InputError: it holds something that cannot be pickled; the message names the node.
    """
    places = {node: place for place, node in enumerate(graph.nodes)}
    records = [_record(node, places) for node in graph.nodes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return _Pickler.dumps((records, graph._codegen))
        except Exception as error:
            raise InputError(_reason(records, error)) from error


def load_graph(data: bytes) -> fx.Graph:
    """The graph that `store_graph` gave `data` for; its stand-in tensors have a mode of their own."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        loaded: Any = GraphPickler.loads(data, mode)
    records, codegen = loaded
    graph = fx.Graph()
    nodes: list[fx.Node] = []

    def node_of(value: Any) -> Any:
        return nodes[value.place] if isinstance(value, _Reference) else value

    with mode:
        for record in records:
            args, kwargs = (fx.node.map_aggregate(value, node_of) for value in (record.args, record.kwargs))
            target = record.target.found() if isinstance(record.target, _Operator) else record.target
            node = graph.create_node(record.op, target, args, kwargs, record.name)
            node.meta = record.meta
            if "val" in node.meta:
                node.meta["val"] = pytree.tree_map(_made, node.meta["val"])
            nodes.append(node)
    graph._codegen = codegen
    return graph


def _record(node: fx.Node, places: dict[fx.Node, int]) -> _Record:
    def reference(other: fx.Node) -> Any:
        return _Reference(places[other])

    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), reference)
    meta = {key: value for key, value in node.meta.items() if key in _KEPT or key.startswith("reconvene")}
    if "val" in meta:
        meta["val"] = pytree.tree_map(_described, meta["val"])
    if "nn_module_stack" in meta:  # Classes as their names: another process may not have them.
        meta["nn_module_stack"] = {key: (path, _name(kind)) for key, (path, kind) in meta["nn_module_stack"].items()}
    return _Record(node.name, node.op, _Operator.of(node.target), args, kwargs, meta)


_KEPT = ("val", "stack_trace", "nn_module_stack", "custom", "torch_fn")
"""Of what is recorded at a node: what this package reads. The rest is torch's own, about the graph before export."""


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def _described(value: Any) -> Any:
    """A stand-in of fixed sizes by its numbers: it may be of another mode than those whose sizes may vary."""
    if not isinstance(value, FakeTensor) or any(isinstance(size, torch.SymInt) for size in value.shape):
        return value
    return _StandIn(tuple(value.shape), tuple(value.stride()), value.dtype, value.device, value.requires_grad)


def _made(value: Any) -> Any:
    if not isinstance(value, _StandIn):
        return value
    tensor = torch.empty_strided(value.shape, value.stride, dtype=value.dtype, device=value.device)
    return tensor.requires_grad_(value.requires_grad) if value.requires_grad else tensor


def _reason(records: list[_Record], error: Exception) -> str:
    for record in records:
        try:
            _Pickler.dumps(record)
        except Exception:
            return (
                f"this module cannot be pickled: its node '{record.name}' holds something that cannot be stored; write"
                " it as a .pt2 file with reconvene's save_program, or save its state_dict()"
            )
    return f"this module cannot be pickled ({str(error).splitlines()[0]}); save its state_dict()"
