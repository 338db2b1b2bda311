"""Between what bounds a value lies, and whether it can be infinite or NaN, for finite inputs of any size.

Inputs that are added to the scores of an attention hold minus infinity, too: they are masks (see ``additive_masks``).
A zero stays zero only under a factor that is finite; attention weights sum to one only where some key is visible. Interval
arithmetic tells: ``x / (norm + 1e-6)`` is finite, ``x / mask.sum()`` may not be. Overflow is left out of account: ``exp`` is
finite. A range is worked out when a rule first asks for it.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from .additive_masks import additive_masks
from .intervals import ANYTHING, FINITE, Range, hull
from .number_ranges import number_range
from .range_rules import TRANSFERS, unknown
from .values import WRITTEN, Operation, attribute, is_tensor, operator_name

__all__ = ["Range", "Ranges"]

_INF = math.inf
_LARGE = 1 << 12
"""Parameters of more entries than this are finite, which was checked; their bounds are not needed."""


class Ranges:
    """The ranges of a graph's values, by node."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._known: dict[fx.Node, Range] = {}
        if isinstance(module, fx.GraphModule):
            self._known.update(dict.fromkeys(additive_masks(module).values(), Range(down=True)))

    def assume_finite(self, places: Iterable[fx.Node]) -> None:
        """What a forward pass leaves in these stored tensors is finite. To be said before any range is asked for."""
        self._known.update(dict.fromkeys(places, FINITE))

    def __getitem__(self, node: fx.Node) -> Range:
        pending = [node]
        while pending:
            current = pending[-1]
            missing = [operand for operand in current.all_input_nodes if operand not in self._known]
            if missing and current not in self._known:
                pending.extend(missing)
                continue
            pending.pop()
            if current not in self._known:
                self._known[current] = self._worked_out(current)
        return self._known[node]

    def _worked_out(self, node: fx.Node) -> Range:
        if node.op == "placeholder":
            return _by_type(node)
        if node.op == "get_attr":
            if node.meta.get(WRITTEN):
                return ANYTHING  # A forward pass before this one may have left anything.
            return _of_stored(attribute(self._module, str(node.target)))
        if node.op != "call_function":
            return ANYTHING
        name = operator_name(node)
        if name == "getitem" and isinstance(node.args[0], fx.Node):
            return FINITE if _is_whole(node) else self._known[node.args[0]]
        if isinstance(node.meta.get("val"), int | float | torch.SymInt | torch.SymFloat):
            return number_range(node, self.of)
        found = TRANSFERS.get(name.removeprefix("aten."), unknown)(Operation(node), self.of)
        if is_tensor(node) and node.meta["val"].is_complex():
            return FINITE if found.finite else ANYTHING  # Complex numbers have no order, so there are no bounds.
        return _whole(found, node.meta["val"].dtype) if _is_whole(node) else found

    def of(self, value: Any) -> Range:
        """The range of an argument: a node, a number, or a list of them."""
        if isinstance(value, fx.Node):
            return self[value]
        if isinstance(value, list | tuple):
            return hull([self.of(item) for item in value])
        if isinstance(value, bool | int | float):
            number = float(value)
            if math.isfinite(number):
                return Range(number, number)
            return Range(0, 0, up=number == _INF, down=number == -_INF, nan=number != number)
        if isinstance(value, complex):
            return FINITE if cmath.isfinite(value) else ANYTHING
        return ANYTHING


def _is_whole(node: fx.Node) -> bool:
    return is_tensor(node) and not (node.meta["val"].is_floating_point() or node.meta["val"].is_complex())


def _whole(found: Range, kind: torch.dtype) -> Range:
    """Of whole numbers, which are never infinite, and start again where they leave their type."""
    if kind is torch.bool or not found.finite:
        return Range(0, 1) if kind is torch.bool else FINITE
    low, high = (bound if math.isinf(bound) else float(math.trunc(bound)) for bound in (found.low, found.high))
    limits = torch.iinfo(kind)
    narrow = limits.bits < 32 and (math.isinf(low) or math.isinf(high))
    leaves = (low < limits.min and low != -_INF) or (high > limits.max and high != _INF)
    return FINITE if narrow or leaves else Range(low, high)


def _by_type(node: fx.Node) -> Range:
    kind = node.meta["val"].dtype if is_tensor(node) else None
    return {torch.bool: Range(0, 1), torch.uint8: Range(0, 255)}.get(kind, FINITE) if kind is not None else FINITE


def _of_stored(value: Any) -> Range:
    if not isinstance(value, torch.Tensor):
        return ANYTHING
    if not value.numel() or (isinstance(value, torch.nn.Parameter) and value.numel() > _LARGE):
        return FINITE
    value = value.detach()
    if value.is_complex():
        return FINITE if bool(value.isfinite().all()) else ANYTHING
    if not value.is_floating_point() or bool(value.sum().isfinite()):
        low, high = (float(bound) for bound in torch.aminmax(value))
        return Range(low, high)
    finite = value[value.isfinite()]
    low, high = (float(bound) for bound in torch.aminmax(finite)) if finite.numel() else (0.0, 0.0)
    up, down = (bool((value == sign).any()) for sign in (_INF, -_INF))
    return Range(low, high, up, down, bool(value.isnan().any()))
