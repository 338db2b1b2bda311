"""What was chosen for every layer of a network, and what the zeros in its weights brought: for people, after the fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...passes.structures import recognise
from ..graph.nodes import Array, Convolution, Graph, Node
from ..graph.sharing import sample
from ..kernels.base import LayerSpec, Task
from ..kernels.families import DENSE, candidates
from ..kernels.planes import is_planes
from ..lowering.steps import Choice, KernelPlan, PlacedLayer

__all__ = ["Figures", "LayerChoice", "layer_choices", "names_of_weights"]

Figures = dict[LayerSpec, float]
"""What candidates cost, by whoever chose."""


@dataclass(frozen=True)
class LayerChoice:
    """A convolution or linear layer, and its kernel.

    Attributes:
        name: of its weight in the model; a number of the backend's where it is none of the model's as it is.
        shape: of the weight, as filters x input channels of a group x kernel.
        weights, zeros: how many there are.
        structure: of the zeros, found from the weight alone; None where there are none.
        kernel: the family of its kernel.
        planes: whether its images lie in planes, else in blocks of channels.
        calls: how often one pass calls it.
        cost: of one call, by whoever chose; None where there was nothing to choose.
        dense: the family of the best kernel that multiplies by zeros, too, and what that costs.
        bytes: of the weights and tables that the kernel reads in one call.
        dense_bytes: and of those that the dense kernel would read.
        dtype: of the values that it reads; codes of quantised ones are int8, or uint8 where instructions ask for that.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    structure: str | None
    kernel: str
    planes: bool
    calls: int = 1
    cost: float | None = None
    dense: str | None = None
    dense_cost: float | None = None
    bytes: int = 0
    dense_bytes: int | None = None
    dtype: str = "float32"


def layer_choices(
    plan: KernelPlan, choice: Choice, blocks: KernelPlan, figures: Figures, names: Mapping[Node, str]
) -> tuple[LayerChoice, ...]:
    """All layers of `plan`, in the order of their first calls. In the plan `blocks` of the same graph all images are in blocks,
    which is how a dense kernel would compute a layer; `figures` are of the candidates of both.
    """
    dense = {step.node: step.layer.task for step in blocks.kernels if step.layer is not None}
    found = [
        _choice(step.node, step.layer, step.layer.chosen(choice), dense.get(step.node), figures, names, plan)
        for step in plan.kernels
        if step.layer is not None
    ]
    calls = Counter(found)
    return tuple(replace(layer, calls=count) for layer, count in calls.items())


def _choice(
    node: Node,
    layer: PlacedLayer,
    spec: LayerSpec,
    task: Task | None,
    figures: Figures,
    names: Mapping[Node, str],
    plan: KernelPlan,
) -> LayerChoice:
    kernel = layer.convolution.weights.kernel
    zeros = kernel.size - int(np.count_nonzero(kernel))
    structure = recognise(torch.from_numpy(kernel)) if zeros else None
    made = LayerChoice(
        name=names.get(node, plan.graph.names.get(node) or node.name),
        shape=kernel.shape,
        weights=kernel.size,
        zeros=zeros,
        structure=None if structure is None else str(structure),
        kernel=spec.family,
        planes=plan.machine.lanes() > 1 and is_planes(spec.result),
        cost=figures.get(spec),
        bytes=spec.weight_bytes,
        dtype=node.inputs[0].dtype,
    )
    others = candidates(task, plan.machine, DENSE) if task is not None else ()
    priced = [other for other in others if other in figures]
    if not priced:
        return made
    best = min(priced, key=lambda other: (figures[other], other.family))
    return replace(made, dense=best.family, dense_cost=figures[best], dense_bytes=best.weight_bytes)


def names_of_weights(graph: Graph, weights: Mapping[str, Array]) -> dict[Node, str]:
    """Whose weight every layer of a graph has that nothing was folded into yet, of `weights` by name."""
    known: dict[tuple[int, bytes], list[str]] = {}
    for name, weight in weights.items():
        if weight.ndim > 1:
            known.setdefault((weight.size, sample(weight.astype("float64"))), []).append(name)
    found: dict[Node, str] = {}
    for node in graph.nodes:
        if isinstance(node.detail, Convolution):
            kernel = node.detail.as_modelled()
            alike = known.get((kernel.size, sample(kernel)), [])
            same = next((name for name in alike if np.array_equal(weights[name].reshape(-1), kernel)), None)
            if same is not None:
                found[node] = same
    return found
