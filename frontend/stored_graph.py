"""A graph as bytes, for copies in other processes and for ``torch.save``: every node with its arguments and records.

torch.fx itself keeps only generated code and traces it again, which loses shapes, names of modules, and modes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx._graph_pickler import GraphPickler
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from .errors import InputError

__all__ = ["load_graph", "store_graph"]


@dataclass(frozen=True)
class _Reference:
    """Another node, by its place."""

    place: int


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
            return GraphPickler.dumps((records, graph._codegen))
        except Exception as error:
            raise InputError(_reason(records, error)) from error


def load_graph(data: bytes) -> fx.Graph:
    """The graph that `store_graph` gave `data` for; its stand-in tensors have a mode of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        loaded: Any = GraphPickler.loads(data, FakeTensorMode(shape_env=ShapeEnv()))
    records, codegen = loaded
    graph = fx.Graph()
    nodes: list[fx.Node] = []

    def node_of(value: Any) -> Any:
        return nodes[value.place] if isinstance(value, _Reference) else value

    for record in records:
        args, kwargs = (fx.node.map_aggregate(value, node_of) for value in (record.args, record.kwargs))
        node = graph.create_node(record.op, record.target, args, kwargs, record.name)
        node.meta = record.meta
        nodes.append(node)
    graph._codegen = codegen
    return graph


def _record(node: fx.Node, places: dict[fx.Node, int]) -> _Record:
    def reference(other: fx.Node) -> Any:
        return _Reference(places[other])

    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), reference)
    meta = {key: value for key, value in node.meta.items() if _is_kept(value)}
    return _Record(node.name, node.op, node.target, args, kwargs, meta)


def _is_kept(value: Any) -> bool:
    """Not records of torch's own that hold nodes of the graph before export."""
    found: list[Any] = []
    fx.node.map_aggregate(value, lambda leaf: found.append(leaf) if isinstance(leaf, fx.Node) else None)
    return not found


def _reason(records: list[_Record], error: Exception) -> str:
    for record in records:
        try:
            GraphPickler.dumps(record)
        except Exception:
            return (
                f"this module cannot be pickled: its node '{record.name}' holds something that cannot be stored; write"
                " it as a .pt2 file with reconvene's save_program, or save its state_dict()"
            )
    return f"this module cannot be pickled ({str(error).splitlines()[0]}); save its state_dict()"
