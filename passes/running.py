"""Runs a graph node by node, in its own types or in a wider one, with every value freed after its last reader.

A graph's types are its own: bytes divided by a number, booleans summed, ``arange`` and random numbers take PyTorch's
default type, literals name one, stored tensors have one. All of them follow, those of graphs within the graph too, so that
a run in float64 is one in float64 throughout, and needs no float64 copy of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..frontend.writes import written_places

__all__ = ["Recorder", "Runner", "Shaken", "default_type", "in_turn", "run_graph"]

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64, torch.float16: torch.complex32}
_TURNS = 3
"""Calls of a graph with state, one after the other."""

_ROUNDING = 4.0
"""How many times the type's machine epsilon a value moves where it is rounded otherwise."""


def in_turn(inputs: Sequence[Any], turns: int) -> Iterator[tuple[Any, ...]]:
    """Inputs for several calls of a graph with state: the numbers of the first, at other places."""
    for turn in range(turns):
        yield pytree.tree_map(lambda value: _rolled(value, turn), tuple(inputs))  # noqa: B023


def _rolled(value: Any, places: int) -> Any:
    return value.roll(places) if places and isinstance(value, torch.Tensor) and value.is_floating_point() else value


class Runner(fx.Interpreter):
    """Interprets a graph with all floating (and complex) types replaced by `dtype` (and its complex one).

    Args:
        module: the graph; its tensors are only read.
        dtype: the type to run in, or None to run in the graph's own.
    """

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype | None) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._dtype = dtype
        self._written = {str(place.target) for place in written_places(module.graph) if place.op == "get_attr"}
        self._state: dict[str, torch.Tensor] = {}

    def values(self, inputs: Sequence[Any], seed: int = 0) -> list[Any]:
        """Runs on copies of `inputs` and gives the outputs, flattened. Random operators draw from `seed`.

        A graph that writes to stored tensors makes several calls in turn, from what they hold; the outputs of all follow each
        other. PyTorch's generator and default type are as before afterwards.
        """
        self._state.clear()
        found: list[Any] = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]), default_type(self._dtype):
            torch.default_generator.manual_seed(seed)  # The processor's alone; those of others cost a stack trace each.
            for turn in in_turn(inputs, _TURNS if self._written else 1):
                flat = [self._own(leaf) for leaf in pytree.tree_leaves(turn)]
                result = pytree.tree_leaves(self.run(*flat, enable_io_processing=False))
                # What is given out may be state, which the next call writes to.
                found += [leaf.clone() if self._written and isinstance(leaf, torch.Tensor) else leaf for leaf in result]
        return found

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        if isinstance(value, fx.GraphModule):
            return self._nested(value)
        value = self.cast(value)
        if target not in self._written or not isinstance(value, torch.Tensor):
            return value
        return self._state.setdefault(str(target), value.clone())

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map(self._retyped, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def cast(self, value: Any) -> Any:
        """A tensor in the type of the run; anything else as it is."""
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach()
        kind = self._retyped(value.dtype)
        return value if value.dtype is kind else value.to(kind)

    def _own(self, value: Any) -> Any:
        return self.cast(value).clone() if isinstance(value, torch.Tensor) else value

    def _retyped(self, value: Any) -> Any:
        """A type written into the graph as a literal follows the type of the run."""
        if self._dtype is None or not isinstance(value, torch.dtype):
            return value
        if value.is_complex:
            return _COMPLEX.get(self._dtype, torch.complex64)
        return self._dtype if value.is_floating_point else value

    def _nested(self, body: fx.GraphModule) -> Any:
        """A branch of ``torch.cond`` or the like, as a function that runs in the same type."""

        def run(*operands: Any) -> Any:
            return type(self)(body, self._dtype).run(*operands, enable_io_processing=False)

        return run


class Recorder(Runner):
    """Also keeps every tensor by the name of its node."""

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype | None) -> None:
        super().__init__(module, dtype)
        self.seen: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.seen[n.name] = value.clone()
        return value


class Shaken(Runner):
    """Rounds every value otherwise: multiplies each entry by one plus a random number of the size of a rounding error.

    Monte Carlo arithmetic (D. S. Parker, 1997). Exact zeros stay zero.
    """

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype | None) -> None:
        super().__init__(module, dtype)
        self._noise = torch.Generator().manual_seed(0)  # What the graph draws itself stays the same.

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "call_function" or not isinstance(value, torch.Tensor) or value._is_view():
            return value
        if not value.is_floating_point():
            return value
        drawn = torch.randn(value.shape, generator=self._noise, dtype=value.dtype).to(value.device)
        return value * (1 + _ROUNDING * torch.finfo(value.dtype).eps * drawn)


def run_graph(
    module: fx.GraphModule, inputs: Sequence[Any], dtype: torch.dtype | None, seed: int = 0
) -> list[torch.Tensor]:
    """Runs `module` on copies of `inputs` in floating type `dtype` and gives its tensor outputs, flattened."""
    return [leaf for leaf in Runner(module, dtype).values(inputs, seed) if isinstance(leaf, torch.Tensor)]


@contextmanager
def default_type(dtype: torch.dtype | None) -> Iterator[None]:
    """PyTorch's default type, which ``uint8 / 255`` and ``torch.arange(4.0)`` take."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
