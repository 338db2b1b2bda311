"""Which floating-point inputs are masks: numbers that are added to attention's scores, minus infinity where they hide a key.

Every other floating-point input is taken to be finite; these are not, whatever the example holds.
"""

from __future__ import annotations

from torch import fx

from .values import Operation, is_tensor

__all__ = ["additive_masks"]

_PASSES = tuple(
    name if name == "getitem" else f"aten.{name}"
    for name in (
        "alias clone contiguous detach _to_copy to type_as view reshape flatten unflatten squeeze unsqueeze expand repeat "
        "transpose permute slice select narrow split chunk masked_fill getitem "
        "cat stack constant_pad_nd pad index_select repeat_interleave expand_as view_as clamp clamp_min"
    ).split()
)
"""Operators whose results hold the numbers of their operand, all or some."""


def additive_masks(module: fx.GraphModule) -> dict[int, fx.Node]:
    """By the place of an input among the graph's: the floating-point ones that do nothing but mask scores."""
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    return {place: node for place, node in enumerate(inputs) if _is_real(node) and _masks(node, module)}


def _is_real(node: fx.Node) -> bool:
    return is_tensor(node) and node.meta["val"].is_floating_point()


def _masks(source: fx.Node, module: fx.GraphModule) -> bool:
    """Whether all that reads an input adds it to scores: in an attention, or in a sum that a softmax reads."""
    pending, seen, found = [(source, False)], set[tuple[fx.Node, bool]](), False
    while pending:
        value, added = pending.pop()
        for user in value.users:
            if user.op == "call_function" and not _makes_tensors(user):
                continue
            if user.op != "call_function":
                return False
            reader = Operation(user, module)
            if _scores(reader, value, added):
                found = True
            elif reader.name in _PASSES or _scales(reader) or _adds(reader, value):
                result = user, added or _adds(reader, value)
                if result not in seen:
                    seen.add(result)
                    pending.append(result)
            else:
                return False
    return found


def _scores(reader: Operation, value: fx.Node, added: bool) -> bool:
    """Whether a call makes weights of scores that `value` masks."""
    if reader.name == "aten.scaled_dot_product_attention":
        return all(reader[name] is not value for name in ("query", "key", "value"))
    return added and reader.name in ("aten.softmax", "aten._softmax")


def _scales(reader: Operation) -> bool:
    """Whether a call multiplies by a number above zero: minus infinity stays what it is."""
    other = reader.get("other")
    return reader.name in ("aten.mul", "aten.div") and isinstance(other, int | float) and other > 0


def _adds(reader: Operation, value: fx.Node) -> bool:
    """Whether a call adds `value`, as it is, to something."""
    if reader.name in ("aten.baddbmm", "aten.addmm"):
        return sum(operand is value for operand in reader.arguments.values()) == 1 and reader["self"] is value
    return reader.name == "aten.add"


def _makes_tensors(node: fx.Node) -> bool:
    """Sizes that are read of a value say nothing of its numbers."""
    made = node.meta.get("val")
    return is_tensor(node) or isinstance(made, list | tuple)
