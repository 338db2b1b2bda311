"""Shapes of a captured graph that no longer remember the example's own sizes."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch import fx
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

__all__ = ["restate_sizes"]

_ANY_SIZE = 8191
"""What stands for a size that may vary where torch asks for a number; no size that a model compares with."""


def restate_sizes(graph: fx.Graph) -> dict[str, str]:
    """Gives every value whose size may vary a shape in symbols that are at least 2 and have no number behind them.

    After an export a symbol still has the example's size as its hint, and a comparison that nobody can decide is decided
    by it, and from then on holds for all sizes: a batch of one image would be an axis of size 1 for every rule.

    Returns:
        The new symbols by the old ones.
    """
    renamed = _Renamed()
    for node in graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = pytree.tree_map(renamed, node.meta["val"])
    return {str(old): str(new) for old, new in renamed.symbols.items()}


class _Renamed:
    """Tensors and sizes with symbols of an environment of its own."""

    def __init__(self) -> None:
        self._env = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=self._env, allow_non_fake_inputs=True)
        self.symbols: dict[sympy.Symbol, sympy.Expr] = {}
        self._sizes: dict[sympy.Expr, int | torch.SymInt] = {}
        self._tensors: dict[Any, torch.Tensor] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.SymInt):
            return self._size(value)
        if isinstance(value, FakeTensor) and any(isinstance(size, torch.SymInt) for size in value.shape):
            return self._tensor(value)
        return value

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        shape, stride = ([self._size(size) for size in sizes] for sizes in (value.shape, value.stride()))
        key = (value.dtype, value.device, value.requires_grad, str(shape), str(stride))
        if key not in self._tensors:
            with self._mode:
                made = torch.empty_strided(shape, stride, dtype=value.dtype, device=value.device)
            self._tensors[key] = made
        return self._tensors[key]

    def _size(self, size: int | torch.SymInt) -> int | torch.SymInt:
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression not in self._sizes:
            symbols = {symbol: self._symbol(symbol, size) for symbol in expression.free_symbols}
            restated = expression.xreplace(symbols)
            self._sizes[expression] = self._env.create_symintnode(restated, hint=None)
        return self._sizes[expression]

    def _symbol(self, symbol: sympy.Symbol, size: torch.SymInt) -> sympy.Expr:
        if symbol not in self.symbols:
            environment = size.node.shape_env
            if symbol in environment.backed_var_to_val:
                upper = environment.var_to_range[symbol].upper
                stand_in = _ANY_SIZE + 2 * len(self.symbols)
                largest = int(upper) if isinstance(upper, sympy.Integer) else stand_in
                source = ConstantSource(f"{symbol}")
                made = self._env.create_symbol(max(2, min(stand_in, largest)), source, DimDynamic.DYNAMIC, None)
                self._env.var_to_range[made] = ValueRanges(2, max(2, upper))
            else:
                made = self._env.create_unbacked_symint().node.expr
            self.symbols[symbol] = made
        return self.symbols[symbol]
