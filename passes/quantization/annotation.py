"""Tells torchao's PT2E what `rounding` found: a specification for each value that a call reads rounded."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..values import Operation, operator_name
from .operators import OUT_AXIS
from .pt2e import PT2E
from .ranges import HIGH, LOW, MOST, MinMax
from .rounding import Rounding

__all__ = ["quantizer_for"]


def quantizer_for(pt2e: PT2E, rounding: Rounding, range_kind: type[MinMax]) -> Any:
    """A quantizer of PT2E's kind that writes `rounding` into the graph that it is of.

    Values are annotated where they are read, never where they are made, so that float readers get them unrounded.
    """

    class Int8(pt2e.quantizer):  # type: ignore[name-defined, misc]
        """Annotates a graph for 8-bit integers."""

        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node, inputs in _inputs(pt2e, rounding, range_kind).items():
                node.meta[pt2e.key] = pt2e.annotation(
                    input_qspec_map=inputs, allow_implicit_sharing=False, _annotated=True
                )
            return model

        def validate(self, model: fx.GraphModule) -> None:
            pass

    return Int8()


def _inputs(pt2e: PT2E, rounding: Rounding, range_kind: type[MinMax]) -> dict[fx.Node, dict[fx.Node, Any]]:
    """By call, a specification for each value that it reads rounded. The first edge of a scale has one of its own."""
    found: dict[fx.Node, dict[fx.Node, Any]] = {}
    first: dict[Any, tuple[fx.Node, fx.Node]] = {}

    def add(key: Any, edge: tuple[fx.Node, fx.Node], spec: Any) -> None:
        owner = first.setdefault(key, edge)
        value, node = edge
        found.setdefault(node, {})[value] = spec if owner == edge else pt2e.shared(owner)

    values = pt2e.spec(torch.int8, _made(pt2e.observer, range_kind=range_kind), LOW, HIGH, torch.per_tensor_affine)
    edges = _by_node(rounding)
    for node, read in edges.items():
        for value in read:
            add(rounding.groups[value], (value, node), values)
        if node in rounding.layers:
            weight, axis = Operation(node)["weight"], OUT_AXIS.get(operator_name(node), 0)
            spec = pt2e.spec(
                torch.int8, _made(pt2e.weight_observer), -MOST, MOST, torch.per_channel_symmetric, ch_axis=axis
            )
            add((weight, axis), (weight, node), spec)
    return found


def _by_node(rounding: Rounding) -> dict[fx.Node, list[fx.Node]]:
    found: dict[fx.Node, list[fx.Node]] = {}
    for value, node in rounding.edges:
        found.setdefault(node, []).append(value)
    return found


def _made(kind: type, **options: Any) -> Any:
    """The observer's class with options, which PT2E calls with those of a specification."""
    return kind.with_args(**options)  # type: ignore[attr-defined]
