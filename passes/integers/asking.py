"""What rules ask of the pass that they are part of."""

from __future__ import annotations

from typing import Any, Protocol

from torch import fx

from .constants import Constants
from .scheme import Codes

__all__ = ["Asking"]


class Asking(Protocol):
    """The pass over a graph, as its rules see it."""

    constants: Constants
    changed: frozenset[fx.Node]
    """Values that calls write to: what they are depends on when they are read."""

    def emit(self, at: fx.Node, target: Any, *args: Any) -> fx.Node:
        """A call right before `at`."""
        ...

    def known(self, value: Any) -> tuple[Codes, fx.Node] | None:
        """The codes that a value is read from; None where it is computed in float32."""
        ...

    def parts(self, whole: fx.Node, codes: fx.Node) -> fx.Node:
        """The parts of `codes` as `whole` gives those of numbers, once for all who take one."""
        ...

    def shaped(self, at: fx.Node, found: fx.Node) -> fx.Node:
        """`found`, whose numbers are those of `at` in order, in the shape of `at`."""
        ...
