"""What is legal after each stage of `compact` and `compile`, as docs/design.md has it in a table; checked in every test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.fusion import group_nodes
from reconvene.backends.graph.nodes import (
    Convolution,
    Foreign,
    Frame,
    Graph,
    Node,
    Normalization,
    Pool,
    Reindex,
    Scalar,
    Transposed,
)
from reconvene.backends.lowering.steps import KernelPlan, Placed
from reconvene.passes.canonicalize import CHECKS
from reconvene.passes.values import attribute, operator_name

__all__ = ["LEGAL", "check_stage"]


def captured(module: fx.GraphModule) -> None:
    """Operators and stored tensors only, every value with its shape and type."""
    for node in module.graph.nodes:
        assert node.op in ("placeholder", "get_attr", "call_function", "output") or not node.users, node
        assert node.op != "call_function" or not node.users or "val" in node.meta, node


def canonical(module: fx.GraphModule) -> None:
    """Also no checks, nothing that is read by nobody, and one name for a stored tensor."""
    captured(module)
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    assert not [node for node in calls if not node.users and (not node.is_impure() or operator_name(node) in CHECKS)]
    stored = [attribute(module, str(node.target)) for node in module.graph.nodes if node.op == "get_attr"]
    assert len({id(value) for value in stored}) == len(stored)


def masked(module: fx.GraphModule) -> None:
    """Also parameters of finite numbers only."""
    canonical(module)
    for name, parameter in module.named_parameters():
        assert not parameter.is_floating_point() or bool(parameter.isfinite().all()), name


def compacted(module: fx.GraphModule) -> None:
    """Also stored tensors of the shapes that the graph says."""
    canonical(module)
    for node in module.graph.nodes:
        value = attribute(module, str(node.target)) if node.op == "get_attr" else None
        assert not isinstance(value, torch.Tensor) or value.shape == node.meta["val"].shape, node


def read(graph: Graph) -> None:
    """Known operations with their details; nodes behind their inputs, and readers counted."""
    done: set[Node] = set()
    for node in graph.nodes:
        assert isinstance(node.detail, DETAILS[node.op]), node
        assert done.issuperset(node.inputs), node
        done.add(node)
    assert done.issuperset([*graph.inputs, *graph.outputs])
    readers = Counter((source, node) for node in graph.nodes for source in node.inputs)
    assert readers == Counter((source, node) for source, nodes in graph.users.items() for node in nodes)


def folded(graph: Graph) -> None:
    """Also nothing left to fold: no layer before a constant of channels alone, or behind a frame that is padding."""
    read(graph)
    assert fold_channels(graph) == fold_margins(graph) == 0


def fused(graph: Graph) -> None:
    """Also every node in one kernel, of at most one anchor, whose elements are those of its last value."""
    folded(graph)
    groups = group_nodes(graph)
    members = [(group, node) for group in groups for node in {group.anchor, group.sink, *group.scalars} - {None}]
    assert Counter(node for _, node in members) == Counter(graph.nodes)
    for group, node in members:
        assert node is group.sink or (node.shape == group.sink.shape and node not in graph.outputs), node
        outside = [user for user in graph.users.get(node, []) if user not in group.scalars]
        assert node is group.sink or not outside, node


def planned(plan: KernelPlan) -> None:
    """Steps behind what they read, and every output among the values."""
    fused(plan.graph)
    done: set[Any] = {*plan.graph.inputs, *(node for node in plan.graph.nodes if node.op == "constant")}
    for step in plan.steps:
        values = (*step.sources, *step.leaves) if isinstance(step, Placed) else step.inputs
        assert all(isinstance(value, np.ndarray) or value in done for value in values), step
        done.add(step)
    assert done.issuperset(plan.results)


def check_stage(stage: str, value: Any) -> None:
    """Fails where `value` is not what may come out of a stage."""
    LEGAL[stage](value)


DETAILS: dict[str, type | tuple[type, ...]] = {
    "input": type(None), "constant": np.ndarray, "convolution": Convolution, "pool": Pool, "mean": type(None),
    "largest": type(None),
    "total": type(None), "table": np.ndarray, "transposed": Transposed,
    "normalize": Normalization,
    "layer_norm": Normalization,
    "scalar": Scalar, "concat": type(None), "reindex": Reindex, "frame": Frame, "product": type(None),
    "softmax": type(None), "flatten": type(None), "reshape": type(None), "item": int,
    "convert": type(None), "foreign": Foreign,
}  # fmt: skip
"""What a node of an operation has beside its inputs."""

LEGAL: dict[str, Callable[[Any], None]] = {
    "captured": captured, "canonical": canonical, "masked": masked, "compacted": compacted,
    "read": read, "folded": folded, "fused": fused, "planned": planned,
}  # fmt: skip
