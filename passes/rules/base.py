"""What a rule is, and where rules are kept.

A rule says four things about one family of operators: how channel axes correspond (`relate`), which constants come out
when constants go in (`constants`), which input channels the kept output channels need (`demand`), and what changes in
the call and its parameters when channels are gone (`rewrite`). An operator without a rule is a barrier: its operands
and results stay whole, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, overload

import torch
from torch import fx

from ...frontend.base.errors import InputError
from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, unknown
from ..layers import Layer
from ..liveness import KnownConstants, Liveness
from ..values import Operation, shape_of

__all__ = ["Rule", "layer_of", "register", "registered", "rule_for", "rule_of"]


class Rule:
    """The behaviour of an operator nothing is known about; families override what they know."""

    operators: ClassVar[tuple[str, ...]] = ()
    """Names without overload, such as ``aten.conv2d``."""

    def reason(self, op: Operation) -> str:
        """Why axes that `relate` does not mention stay whole; empty where that needs no word (spatial axes)."""
        if op.writes:
            return f"{op.name} writes in place to memory that other values share"
        if isinstance(op.node.target, torch._ops.HigherOrderOperator):
            return f"{op.name} runs a graph of its own, in which every layer stays whole"
        return f"no rule for {op.name}"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        """Declares how the axes of operands and results correspond."""

    def constants(self, op: Operation, facts: KnownConstants) -> Facts | Sequence[Facts]:
        """The constants of the result, or of each result. Nothing by default."""
        outputs = [unknown(len(shape_of(out))) if out is not None else unknown(0) for out in op.outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    def demand(self, op: Operation, live: Liveness) -> None:
        """Requires, through `live`, the input channels that the kept output channels need."""

    def rewrite(self, op: Operation, edit: Edit) -> None:
        """Adapts the call to what is left of its operands."""

    def layer(self, op: Operation) -> Layer | None:
        """The convolution or linear layer that the call is; None for every other operator."""
        return None

    def macs(self, op: Operation, shape: Callable[[fx.Node], tuple[int, ...]]) -> int:
        """Multiply-accumulates of one call, given the shape of every node. 0 for what is not counted."""
        return 0


class Random(Rule):
    """Operators that draw numbers. All channels stay: with fewer, those drawn afterwards would be others, and the same seed
    would not give what it gives in the model."""

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} draws random numbers, in fewer channels it would draw others"


_RULES: dict[str, Rule] = {}
_BARRIER = Rule()
_RANDOM = Random()

R = TypeVar("R", bound=type[Rule])


@overload
def register(rule: R) -> R: ...


@overload
def register(*, replace: bool) -> Callable[[R], R]: ...


def register(rule: R | None = None, *, replace: bool = False) -> R | Callable[[R], R]:
    """Class decorator: makes `rule` the one for its operators; ``@register(replace=True)`` also for those that have one.

    Raises:
        InputError: another rule is registered for one of the operators.
    """

    def added(rule: R) -> R:
        instance = rule()
        for name in rule.operators:
            known = type(_RULES.get(name, instance))
            if not replace and (known.__module__, known.__qualname__) != (rule.__module__, rule.__qualname__):
                raise InputError(
                    f"{name} has a rule already, {known.__module__}.{known.__qualname__}; to take its place, decorate"
                    f" {rule.__qualname__} with @register(replace=True)"
                )
        _RULES.update(dict.fromkeys(rule.operators, instance))
        return rule

    return added if rule is None else added(rule)


def rule_for(name: str) -> Rule:
    """The rule registered for an operator, or the one that treats it as a barrier."""
    return _RULES.get(name, _BARRIER)


def rule_of(op: Operation) -> Rule:
    """The rule for a call: that of its operator, unless it draws random numbers (dropout may be switched on)."""
    return _RANDOM if op.draws else rule_for(op.name)


def layer_of(op: Operation) -> Layer | None:
    """The convolution or linear layer that a call is, or None."""
    return rule_of(op).layer(op)


def registered() -> Mapping[str, Rule]:
    """All rules by operator name."""
    return dict(_RULES)


def optional(value: Any) -> list[fx.Node]:
    """`value` as a list of nodes: empty for an absent argument."""
    return [value] if isinstance(value, fx.Node) else []
