"""Indices from the end: PyTorch counts negative ones from there, and Relax's kernels would read before the tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

__all__ = ["count_from_start"]

A = torch.ops.aten
_INDEXED = (A.index.Tensor, A.index_put.default)


def count_from_start(program: ExportedProgram) -> None:
    """Makes indices that may be negative count from the start, in place. Constants that are not stay as they are."""
    known = _constants(program)
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _INDEXED:
            image, indices, *rest = node.args
            extents = iter(image.meta["val"].shape)
            counted = [_counted(graph, node, index, known, _extent(index, extents)) for index in indices]
            node.args = (image, counted, *rest)


def _extent(index: fx.Node | None, extents: Iterator[int]) -> int:
    """Of the axis that an index stands for; a mask stands for as many as it has itself."""
    masks = index is not None and index.meta["val"].dtype == torch.bool
    return [next(extents) for _ in range(index.meta["val"].dim() if masks and index is not None else 1)][-1]


def _counted(
    graph: fx.Graph, node: fx.Node, index: fx.Node | None, known: Mapping[str, Tensor], extent: int
) -> fx.Node | None:
    if index is None or index.meta["val"].dtype == torch.bool:
        return index
    value = known.get(index.name)
    if value is not None and bool((value >= 0).all()):
        return index
    with graph.inserting_before(node):
        negative = graph.call_function(A.lt.Scalar, (index, 0))
        moved = graph.call_function(A.add.Tensor, (index, int(extent)))
        found = graph.call_function(A.where.self, (negative, moved, index))
    found.meta["val"] = index.meta["val"]
    return found


def _constants(program: ExportedProgram) -> dict[str, Tensor]:
    """Tensors that the program holds, by the names of its placeholders."""
    stored = {**program.state_dict, **program.constants}
    return {
        spec.arg.name: stored[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.target is not None and isinstance(stored.get(spec.target), Tensor)
    }
