"""What the two passes find out: constants of every value, and which positions of every axis class stay.

`propagation` fills both; rules read and extend them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from .axes import Axes
from .facts import Facts, constants_of, unknown
from .ranges import Ranges
from .values import WRITTEN, attribute, is_static, is_tensor, shape_of

__all__ = ["KnownConstants", "Liveness"]

Bools = NDArray[np.bool_]


class KnownConstants(Mapping[fx.Node, Facts]):
    """Facts by node. Those of stored tensors are made when first asked for: most weights never are.

    Attributes:
        module: the graph they are about.
        memo: what rules conclude from facts of several nodes and want to conclude only once.
        cautious: nothing is known of a layer that may read infinite values.
        ranges: between what bounds values lie, and which can be infinite or NaN.
    """

    def __init__(self, module: fx.GraphModule, cautious: bool = False) -> None:
        self.cautious = cautious
        self.memo: dict[Any, Any] = {}
        self.ranges = Ranges(module)
        self.module = module
        self._facts: dict[fx.Node, Facts] = {}

    def __getitem__(self, node: fx.Node) -> Facts:
        facts = self._facts.get(node)
        if facts is None:
            facts = self._facts[node] = self._initial(node)
        return facts

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def trusts(self, node: fx.Node) -> bool:
        """Returns if a layer that mixes the channels of `node` may take them to be finite, or NaN in all it makes of them."""
        return not self.cautious or self.ranges[node].finite

    def set(self, node: fx.Node, facts: Facts) -> None:
        """Records what a rule found out."""
        self._facts[node] = facts

    def _initial(self, node: fx.Node) -> Facts:
        if node.op == "get_attr" and not node.meta.get(WRITTEN):
            value = attribute(self.module, str(node.target))
            if isinstance(value, torch.Tensor):
                return constants_of(value)
        return unknown(len(shape_of(node)) if is_tensor(node) else 0)


class Liveness:
    """Which positions of every axis class stay. It only ever grows.

    Attributes:
        axes: the classes and relations it is about.
        facts: what the forward pass found.
        placing_carriers: in the last phase, rules ask for the constant carriers they still miss.
    """

    def __init__(self, axes: Axes, facts: KnownConstants) -> None:
        self.axes = axes
        self.facts = facts
        self.placing_carriers = False
        self._keep: list[Bools] = [np.zeros(size, bool) for size in axes.sizes]
        self._why: list[NDArray[np.int32]] = [np.full(size, -1, np.int32) for size in axes.sizes]
        self._causes: dict[str, int] = {}
        self._changed: set[int] = set()
        self._needed: list[Bools] = self._keep

    def kept(self, node: fx.Node, axis: int) -> Bools:
        """Which positions of the node's axis stay; length of the axis. Do not write to it."""
        number = self.axes.of(node, axis)
        known = self.axes.sizes[number] or is_static(shape_of(node)[axis])  # An axis may be empty.
        return self._keep[number] if known else np.ones(1, bool)

    def kept_in(self, number: int) -> Bools:
        """The same by class number."""
        return self._keep[number]

    def needed(self, node: fx.Node, axis: int) -> Bools:
        """Which positions stay for what they hold, rather than to carry constants or to fill a shape."""
        number = self.axes.of(node, axis)
        return self._needed[number] if self.axes.sizes[number] else np.ones(1, bool)

    def note_needed(self) -> None:
        """What stays until now is what `needed` tells from now on."""
        self._needed = list(self._keep)  # Grown masks are new arrays.

    def require(self, node: fx.Node, axis: int, mask: Bools, cause: str) -> None:
        """Positions of the node's axis that must stay, and the reason to give the person."""
        self.require_in(self.axes.of(node, axis), mask, cause)

    def require_in(self, number: int, mask: Bools, cause: str) -> None:
        """The same by class number."""
        new = mask & ~self._keep[number]
        if new.any():
            self._keep[number] = self._keep[number] | new
            self._why[number][new] = self._causes.setdefault(cause, len(self._causes))
            self._changed.add(number)

    def inherit_in(self, number: int, mask: Bools, why: NDArray[np.int32]) -> None:
        """Positions of a class that stay because others do; `why` gives the others' causes."""
        new = mask & ~self._keep[number]
        if new.any():
            self._keep[number] = self._keep[number] | new
            self._why[number][new] = why[new]
            self._changed.add(number)

    def why_in(self, number: int) -> NDArray[np.int32]:
        """For every position of a class, the number of the cause it stays for; -1 where it may go."""
        return self._why[number]

    def causes_of(self, number: int, positions: Bools) -> tuple[str, ...]:
        """Why the given positions of a class stay, most frequent first."""
        codes, counts = np.unique(self._why[number][positions & self._keep[number]], return_counts=True)
        names = list(self._causes)
        return tuple(names[code] for code in codes[np.argsort(-counts)] if code >= 0)

    def take_changed(self) -> set[int]:
        """Classes that grew since the last call."""
        changed, self._changed = self._changed, set()
        return changed
