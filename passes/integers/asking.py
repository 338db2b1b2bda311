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

    def emit(self, at: fx.Node, target: Any, *args: Any) -> fx.Node:
        """A call right before `at`."""
        ...

    def known(self, value: Any) -> tuple[Codes, fx.Node] | None:
        """The codes that a value is read from; None where it is computed in float32."""
        ...
