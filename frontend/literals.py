"""Types and devices that a graph names, when its module goes over to others by ``double()``, ``half()`` or ``to(...)``.

torch.export writes ``float32`` and ``cpu`` where the model may have said ``x.dtype`` and ``x.device``. A device is followed
always: a graph is on one. A type is followed where the model's own code can give nothing else; elsewhere the call is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from .base.errors import InputError
from .calls import innermost
from .source_line import source_line

__all__ = ["Literal", "moved_literals"]

Literal = tuple[fx.Node, tuple[Any, ...], dict[str, Any]]
"""A call, and the arguments that it is to have."""

_MADE = frozenset(
    "arange empty empty_like eye full full_like new_empty new_full new_ones new_zeros ones ones_like scalar_tensor zeros"
    " zeros_like".split()
)
"""Operators that give the numbers that they are told, or such as 0 and 1."""

_CONVERSIONS = ("to", "_to_copy")

_CAPTURED = "reconvene_captured_type"
"""Key in a call's ``meta``: the type that it named when the model was captured, where it names another now."""

_LAYERS = ("torch.nn.modules.rnn.", "torch.nn.modules.activation.MultiheadAttention")
"""Layers of torch's own that make values of the type of their input."""


def moved_literals(graph: fx.Graph, move: Callable[[torch.Tensor], torch.Tensor]) -> list[Literal]:
    """The calls of `graph` that name another type or device once `move` was done to the module's tensors.

    Raises:
        InputError: a call names a type, and the graph does not tell whether the model would name another.
    """
    found: list[Literal] = []
    moved: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def after(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        if (dtype, device) not in moved:
            moved[dtype, device] = move(torch.empty(0, dtype=dtype, device=device))
        return moved[dtype, device]

    for node in graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        here = next((value for value in node.kwargs.values() if isinstance(value, torch.device)), torch.device("cpu"))

        def replaced(value: Any, here: torch.device = here, node: fx.Node = node) -> Any:
            if isinstance(value, torch.device):
                return after(torch.float32, value).device
            if isinstance(value, torch.dtype) and value.is_floating_point:
                wanted = after(value, here).dtype
                if wanted != value and not _follows(node, value, wanted):
                    raise InputError(_refusal(node, value, wanted))
                node.meta.setdefault(_CAPTURED, value)
                return wanted
            return value

        args = tuple(map(replaced, node.args))
        kwargs = {name: replaced(value) for name, value in node.kwargs.items()}
        if args != node.args or kwargs != node.kwargs:
            found.append((node, args, kwargs))
    return found


def _follows(node: fx.Node, dtype: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether a call gives what the model would if the type that it names goes over to `wanted`.

    Numbers that the narrower type holds are the same in a wider one, whichever the model asks for: it computes in the wider.
    """
    if innermost(node)[1].startswith(_LAYERS):
        return True
    captured = node.meta.get(_CAPTURED, dtype)
    return torch.promote_types(captured, wanted) == wanted and _is_exact(node, captured)


def _is_exact(node: fx.Node, dtype: torch.dtype) -> bool:
    """Whether a value is made of numbers that `dtype` holds."""
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    if name in _CONVERSIONS:
        return _is_exact(node.all_input_nodes[0], dtype)
    numbers = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, int | float)]
    return name in _MADE and all(
        torch.tensor(value, dtype=dtype).item() == value and (name != "arange" or value == int(value))
        for value in numbers
    )


def _refusal(node: fx.Node, dtype: torch.dtype, wanted: torch.dtype) -> str:
    line = source_line(node)
    old, new = (str(kind).removeprefix("torch.") for kind in (dtype, wanted))
    return (
        f"cannot make the module {new}: '{node.name}'{f' at {line}' if line else ''} names {old}, and the graph does not tell"
        f" whether the model would name {new}; convert the model itself, and capture that"
    )
