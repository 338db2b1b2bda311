"""Where in a network the first value appears that is no number."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ...frontend.calls import describe, innermost
from ...frontend.graph_module import CapturedModule

__all__ = ["first_not_finite", "weight_not_finite"]

_NONE: Mapping[str, Any] = MappingProxyType({})


def weight_not_finite(module: nn.Module) -> str | None:
    """The first trained parameter that holds NaN or infinity, or other tensor that holds NaN: masks may hold infinity."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            wrong = ~tensor.isfinite() if tensor.requires_grad else tensor.isnan()
            if bool(wrong.any()):
                return name
    return None


@torch.no_grad()
def first_not_finite(module: fx.GraphModule, inputs: tuple[Any, ...], named: Mapping[str, Any] = _NONE) -> str | None:
    """For a person, where NaN or infinity first appears when a captured module runs on inputs; None if nowhere.

    Minus infinity alone is what attention masks are made of, and passed over. Statistics of normalisations change as in
    any run.
    """
    if any(map(_is_wrong, pytree.tree_leaves((inputs, dict(named))))):
        return "in the inputs"
    if (name := weight_not_finite(module)) is not None:
        return f"in '{name}'"
    watcher = _Watcher(module, garbage_collect_values=True)
    leaves = module._flattened(inputs, named) if isinstance(module, CapturedModule) else pytree.tree_leaves(inputs)
    watcher.run(*leaves, enable_io_processing=False)
    return watcher.found


class _Watcher(fx.Interpreter):
    """Runs a graph and notes the first call that gives such a value."""

    found: str | None = None

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self.found is None and n.op == "call_function" and any(map(_is_wrong, pytree.tree_leaves(value))):
            path, _ = innermost(n)
            layer = f"layer '{path}', " if path else ""
            self.found = f"in the output of {layer}{describe(n)}"
        return value


def _is_wrong(value: Any) -> bool:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return floating and bool((value.isnan() | value.isposinf()).any())
