"""Several calls of one graph side by side, advanced node by node: what a layer reads is known before the layer is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..running import Runner

__all__ = ["Walk"]


class Walk:
    """Calls of a graph without state, under way. Every value is freed after its last reader.

    Values of all calls are held at once: twice the largest activation of the whole calibration batch is what it costs.
    """

    def __init__(self, module: fx.GraphModule, calls: Sequence[tuple[Any, ...]]) -> None:
        """Args:
        module: the graph; parameters that are changed in place before a node is reached count.
        calls: positional inputs of every call.
        """
        self._nodes = list(module.graph.nodes)
        self._place = 0
        self._number = {node: place for place, node in enumerate(self._nodes)}
        self._runs = [_Call(module, inputs) for inputs in calls]

    def before(self, node: fx.Node) -> None:
        """Runs all that comes before `node`."""
        self._advance(self._number[node])

    def past(self, node: fx.Node) -> None:
        """Runs all that comes before `node`, and `node` itself."""
        self._advance(self._number[node] + 1)

    def values(self, node: fx.Node) -> list[Tensor]:
        """What `node` gave in every call; it has been run, and not all of its readers have."""
        return [run.env[node] for run in self._runs]

    def _advance(self, place: int) -> None:
        with torch.no_grad():
            for node in self._nodes[self._place : place]:
                for run in self._runs:
                    run.step(node)
        self._place = max(self._place, place)


class _Call(Runner):
    """One call, in the graph's own types."""

    def __init__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> None:
        super().__init__(module, None)
        self.args_iter = iter(pytree.tree_leaves(tuple(inputs)))

    def step(self, node: fx.Node) -> None:
        """Runs one node, whose operands have been run, and frees what nobody reads any more."""
        self.env[node] = self.run_node(node)
        for read in self.user_to_last_uses.get(node, ()):
            del self.env[read]
