"""Translation validation: the compacted graph runs against the masked one before anybody gets it.

Both graphs are interpreted node by node with every stored tensor cast when it is read and every value freed after its
last reader, so that a check in float64 needs no float64 copy of the model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..frontend.errors import CheckError
from .dependency import DependencyView
from .outcome import Certificate
from .propagation import Liveness
from .values import MUTATED, is_tensor, shape_of, source_line

__all__ = ["TOLERANCE", "generated_inputs", "run_graph", "verify"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference allowed, relative to the largest output, by the narrower of two types: the one the check runs in
and the one the parameters are stored in, because a folded constant is rounded to the latter."""


class _Caster(fx.Interpreter):
    """Runs a graph in another floating type and, on request, keeps the values of some nodes."""

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._dtype = dtype
        self._written = {
            str(node.target) for node in module.graph.nodes if node.op == "get_attr" and node.meta.get(MUTATED)
        }

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = self._cast(super().get_attr(target, args, kwargs))
        return value.clone() if target in self._written and isinstance(value, torch.Tensor) else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map(self._retype, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def _cast(self, value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.detach().to(self._dtype) if floating else value

    def _retype(self, value: Any) -> Any:
        """A type written into the graph as a literal follows the type of the check."""
        return self._dtype if isinstance(value, torch.dtype) and value.is_floating_point else value


def run_graph(module: fx.GraphModule, inputs: Sequence[Any], dtype: torch.dtype) -> list[torch.Tensor]:
    """Runs `module` on copies of `inputs` in floating type `dtype` and gives its tensor outputs, flattened."""
    caster = _Caster(module, dtype)
    flat = pytree.tree_leaves(tuple(inputs))
    values = [caster._cast(value).clone() if isinstance(value, torch.Tensor) else value for value in flat]
    with torch.no_grad():
        result = caster.run(*values, enable_io_processing=False)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def generated_inputs(example_inputs: Sequence[Any], seed: int) -> tuple[Any, ...]:
    """Inputs of the same structure: floating tensors from a standard normal distribution, the others as they are."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
        return value

    result: tuple[Any, ...] = pytree.tree_map(fresh, tuple(example_inputs))
    return result


def verify(
    view: DependencyView,
    live: Liveness,
    compacted: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    dtype: torch.dtype = torch.float64,
    runs: int = 1,
    seed: int = 0,
) -> Certificate:
    """Compares the view's (masked) module with `compacted` on generated inputs.

    Where the graph was captured with dynamic sizes, one more run uses sizes half as large again.

    Raises:
        CheckError: they differ by more than the tolerance; the message names the first node that differs.
    """
    began = time.perf_counter()
    tolerance = max(TOLERANCE.get(kind, 1e-2) for kind in {dtype, *_stored_types(compacted)})
    absolute, relative = 0.0, 0.0
    shapes: list[tuple[str, ...]] = []
    larger = _enlarged(view.module, example_inputs)
    for run in range(runs + (larger is not None)):
        resized = larger is not None and run == runs
        inputs = generated_inputs(larger if resized and larger is not None else example_inputs, seed + run)
        try:
            expected = run_graph(view.module, inputs, dtype)
        except Exception:
            if resized:
                continue  # The model itself does not run at this size, so there is nothing to compare.
            raise
        shapes.append(
            tuple("x".join(map(str, x.shape)) for x in pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor))
        )
        try:
            found = run_graph(compacted, inputs, dtype)
        except Exception as error:
            raise CheckError(
                f"the compacted graph does not run: {str(error).splitlines()[0]}; please report this"
            ) from error
        for a, b in zip(expected, found, strict=True):
            difference, size = _difference(a, b)
            absolute, relative = max(absolute, difference), max(relative, difference / size)
        if not relative <= tolerance:
            where = _first_difference(view, live, compacted, inputs, dtype, tolerance)
            raise CheckError(
                f"the compacted graph differs from the masked one by {relative:.1e}{where}; it is withheld"
            )
    return Certificate(
        str(dtype).removeprefix("torch."),
        tuple(shapes),
        seed,
        absolute,
        relative,
        tolerance,
        time.perf_counter() - began,
    )


def _enlarged(module: fx.GraphModule, example_inputs: Sequence[Any]) -> tuple[Any, ...] | None:
    """The inputs with every dynamic size half as large again, or None where no size is dynamic."""
    holders = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    leaves, structure = pytree.tree_flatten(tuple(example_inputs))
    if len(holders) != len(leaves):
        return None
    chosen: dict[str, int] = {}
    resized = []
    for holder, leaf in zip(holders, leaves, strict=True):
        if isinstance(leaf, torch.Tensor) and isinstance(holder, torch.Tensor):
            pairs = zip(leaf.shape, holder.shape, strict=True)
            sizes = [n if isinstance(size, int) else chosen.setdefault(str(size), n + n // 2) for n, size in pairs]
            leaf = leaf if sizes == list(leaf.shape) else leaf.new_zeros(sizes)
        resized.append(leaf)
    return tuple(pytree.tree_unflatten(resized, structure)) if chosen else None


def _stored_types(module: fx.GraphModule) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}


def _difference(expected: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """Largest absolute difference and the size it is measured against; infinite where shapes or NaNs disagree."""
    if expected.shape != found.shape:
        return float("inf"), 1.0
    if expected.numel() == 0:
        return 0.0, 1.0
    if not expected.is_floating_point():
        return float((expected != found).sum()), 1.0
    same = (expected == found) | (expected.isnan() & found.isnan())
    gap = torch.where(same, torch.zeros_like(expected), (expected - found).abs())
    finite = expected[expected.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    worst = float(gap.nan_to_num(nan=float("inf")).max())
    return worst, size if size > 0 else 1.0


class _Recorder(_Caster):
    """Also keeps every value by the name of its node."""

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__(module, dtype)
        self.seen: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.seen[n.name] = value.clone()
        return value


def _first_difference(
    view: DependencyView,
    live: Liveness,
    compacted: fx.GraphModule,
    inputs: Sequence[Any],
    dtype: torch.dtype,
    limit: float,
) -> str:
    """Names the first node whose kept channels differ: `` first at 'conv2d_3' (model.py:12)``."""
    recorders = [_Recorder(view.module, dtype), _Recorder(compacted, dtype)]
    for recorder in recorders:
        values = [
            recorder._cast(v).clone() if isinstance(v, torch.Tensor) else v for v in pytree.tree_leaves(tuple(inputs))
        ]
        try:
            with torch.no_grad():
                recorder.run(*values, enable_io_processing=False)
        except Exception:
            break
    expected, found = (recorder.seen for recorder in recorders)
    for node in view.module.graph.nodes:
        if node.op != "call_function" or not is_tensor(node) or node.name not in expected or node.name not in found:
            continue
        value = expected[node.name]
        for axis, size in enumerate(shape_of(node)):
            kept = live.kept(node, axis) if isinstance(size, int) else np.ones(1, bool)
            if not kept.all():
                value = value.index_select(axis, torch.from_numpy(np.flatnonzero(kept)))
        difference, size = _difference(value, found[node.name])
        if not difference <= limit * size:
            return f", first at '{node.name}' ({source_line(node) or node.target})"
    return ""
