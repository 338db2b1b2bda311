"""Reading a captured graph: shapes, tensors, operator arguments, source lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import sympy
import torch
from torch import fx

from ..frontend.calls import named_arguments
from ..frontend.source_line import source_line

__all__ = [
    "MOVED",
    "MUTATED",
    "REMADE",
    "STATE",
    "WRITTEN",
    "Operation",
    "attribute",
    "dimensions",
    "example_shape",
    "is_static",
    "is_tensor",
    "is_unit",
    "operator_name",
    "same_shape",
    "shape_of",
    "source_line",
    "tensor_inputs",
]

MUTATED = "reconvene_mutated"
"""Key in ``node.meta`` of values whose storage an in-place operator changes behind their readers' backs."""

WRITTEN = "reconvene_written"
"""Key in ``node.meta`` of stored tensors that the graph writes to: what they hold now says nothing of later calls."""

STATE = "reconvene_state"
"""Key in ``node.meta`` of the one call that writes a stored tensor, with what the next call is to find there."""

MOVED = "reconvene_moved"
"""Key in ``node.meta`` of weights that a canonical graph stores, with the name of the stored tensor whose entries, in another
order or form, they were computed to be."""

REMADE = "reconvene_remade"
"""Key in ``node.meta`` of weights that a canonical graph stores under the name of what they are computed from, where zeros of
that are none of the weight: standardised ones."""

_FIRST_PRIME = 1_000_003


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The shape of a node's tensor; sizes are ints or SymInts."""
    return tuple(node.meta["val"].shape)


def example_shape(module: torch.nn.Module, node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's tensor in `module` when it was captured, where every size was a number."""
    known = getattr(module, "meta", {}).get("input_sizes")
    return tuple(
        size if isinstance(size, int) else known.number(size) if known is not None else _hint(size)
        for size in shape_of(node)
    )


def _hint(size: torch.SymInt) -> int:
    return int(size.node.hint) if size.node.has_hint() else 1


def is_tensor(node: Any) -> bool:
    """Returns if `node` is a graph node whose value is one tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)


def is_static(size: Any) -> bool:
    """Returns if `size` is a number known at capture."""
    return isinstance(size, int)


def is_unit(size: Any) -> bool:
    """Returns if `size` is the number 1. One that varies is not; where values decide it (``x[mask]``), torch refuses to say."""
    return is_static(size) and size == 1


def same_shape(first: fx.Node, second: fx.Node) -> bool:
    """Returns if two values have equal sizes at all times, as far as anybody knows."""
    return [str(size) for size in shape_of(first)] == [str(size) for size in shape_of(second)]


def dimensions(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """`sizes` as plain ints, every symbol standing as a large prime of its own.

    Products of such numbers are equal exactly when the symbolic products are (but for freak coincidences, which the
    certificate would catch), so that reshapes with dynamic sizes are factored by integer arithmetic.
    """
    return tuple(size if isinstance(size, int) else _prime_value(size) for size in sizes)


def _prime_value(size: torch.SymInt) -> int:
    expression = size.node.expr
    symbols = sorted(expression.free_symbols, key=str)
    values = {symbol: _prime_for(str(symbol)) for symbol in symbols}
    return int(expression.subs(values))


@cache
def _prime_for(symbol: str) -> int:
    digits = re.sub(r"\D", "", symbol) or "0"
    decided_by_values = 500 if symbol.startswith("u") else 0  # ``u0`` is not ``s0``.
    return int(sympy.nextprime(_FIRST_PRIME + 1000 * int(digits) + decided_by_values))


def attribute(module: torch.nn.Module, name: str) -> Any:
    """The parameter, buffer or tensor that a ``get_attr`` node of dotted `name` reads."""
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def operator_name(node: fx.Node) -> str:
    """The name rules are registered under: ``aten.conv2d`` for ``aten.conv2d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target.overloadpacket)
    return getattr(node.target, "__name__", str(node.target))


def tensor_inputs(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes with tensor values that `node` reads, in order, lists included."""
    return (operand for operand in node.all_input_nodes if is_tensor(operand))


_STORES_NOTHING = torch.nn.Module()


class Operation:
    """One call in the graph as rules see it: arguments by the operator's own names, defaults filled in."""

    __slots__ = ("arguments", "cache", "module", "node", "outputs")

    def __init__(self, node: fx.Node, module: torch.nn.Module = _STORES_NOTHING) -> None:
        """`module`: holds the tensors that the call reads; where only its arguments matter, it need not be given."""
        self.node = node
        self.module = module
        self.arguments = named_arguments(node)
        self.outputs = _outputs(node)
        self.cache: dict[str, Any] = {}
        """What the operator's rule wants to compute once; stored tensors do not change under an Operation."""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument called `name`, or `default` if the operator has none of that name."""
        return self.arguments.get(name, default)

    @property
    def name(self) -> str:
        return operator_name(self.node)

    @property
    def draws(self) -> bool:
        """Two runs give two results: a random operator, or dropout that is switched on."""
        if torch.Tag.nondeterministic_seeded not in getattr(self.node.target, "tags", ()):
            return False
        if self.get("train") is False or self.get("training") is False:
            return False
        shares = ("dropout", "dropout_p", *(["p"] if "dropout" in self.name else []))
        return all(self.arguments[name] != 0 for name in shares if name in self.arguments)

    @property
    def writes(self) -> bool:
        """It changes one of its operands."""
        schema = getattr(self.node.target, "_schema", None)
        return schema is not None and schema.is_mutable

    @property
    def example(self) -> torch.Tensor:
        """A tensor without data of the kind the operator gives: its first result."""
        value = self.node.meta["val"]
        tensor: torch.Tensor = value if isinstance(value, torch.Tensor) else value[0]
        return tensor

    @property
    def shape(self) -> tuple[Any, ...]:
        """The output's shape; the first output's where there are several."""
        return tuple(self.example.shape)

    def tensor(self, name: str) -> torch.Tensor | None:
        """The stored tensor an argument reads, or None when it is absent, computed or state."""
        operand = self.arguments.get(name)
        if isinstance(operand, fx.Node) and operand.op == "get_attr" and not operand.meta.get(WRITTEN):
            value = attribute(self.module, str(operand.target))
            return value.detach() if isinstance(value, torch.Tensor) else None
        return None


def _outputs(node: fx.Node) -> list[fx.Node | None]:
    """The tensors an operator gives: itself, or its ``getitem`` users by index (None where one is unused)."""
    if is_tensor(node):
        return [node]
    value = node.meta.get("val")
    if not isinstance(value, tuple | list):
        return []
    outputs: list[fx.Node | None] = [None] * len(value)
    for user in node.users:
        if user.op == "call_function" and operator_name(user) == "getitem":
            outputs[int(user.args[1])] = user  # type: ignore[arg-type]
    return outputs
