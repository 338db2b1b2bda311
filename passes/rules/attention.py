"""Products of two computed tensors: matmul, einsum, scaled dot-product attention.

Axes are named by letters, as in einsum. A letter in the result ties the axes that carry it; a letter that is summed
over ties the operands' axes, and a position of it may go where either operand is zero there.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
from torch import fx

from ..axes import AxesBuilder
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants, Liveness
from ..values import Operation, is_static, is_unit, shape_of
from .base import Rule, optional, register
from .visible_rows import has_finite_entries

__all__ = ["Attention", "Contraction"]

Labels = tuple[list[tuple[fx.Node, str]], str]


@register
class Contraction(Rule):
    """``matmul``, ``bmm``, ``mm``, ``mv`` and two-operand ``einsum``.

    For example::

        before matmul(x 2x5x8, y 2x8x5) -> 2x5x5
        after  matmul(x 2x5x4, y 2x4x5) -> 2x5x5
    """

    operators = ("aten.matmul", "aten.bmm", "aten.mm", "aten.mv", "aten.einsum")

    def reason(self, op: Operation) -> str:
        return "" if self.labels(op) else f"this form of {op.name.removeprefix('aten.')} has no rule"

    def labels(self, op: Operation) -> Labels | None:
        """Operands with a letter for every axis, and the letters of the result; None where that cannot be written."""
        if op.name == "aten.einsum":
            return _einsum_labels(op)
        first, second = op.node.args[0], op.node.args[1]
        assert isinstance(first, fx.Node) and isinstance(second, fx.Node)
        return _matmul_labels(first, second)

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        labels = self.labels(op)
        if labels is None:
            return
        operands, result = labels
        home: dict[str, tuple[fx.Node, int]] = {letter: (op.node, place) for place, letter in enumerate(result)}
        for node, letters in operands:
            for axis, letter in enumerate(letters):
                if letter in home:
                    owner, place = home[letter]
                    if is_unit(shape_of(node)[axis]) and not is_unit(shape_of(owner)[place]):
                        axes.touch((node, axis))
                        continue
                    axes.same((node, axis), (owner, place))
                else:
                    home[letter] = (node, axis)
                    axes.touch((node, axis))
        for letter in self._summed(labels):
            axes.mixes(home[letter], home[letter])

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        labels = self.labels(op)
        if labels is None or len(labels[0]) != 2:
            return unknown(rank)
        zero = self._zero(op, labels, facts)
        (left, left_letters), (right, right_letters) = labels[0]
        weights, values = facts[left], facts[right].plain()
        summed = self._summed(labels)
        if weights.stochastic is None or len(summed) != 1 or left_letters[weights.stochastic] != summed[0]:
            return zero
        # Rows that sum to one leave a constant as it is.
        if values.nothing or values.known.shape[right_letters.index(summed[0])] != 1:
            return zero
        shape = [1] * rank
        for axis, letter in enumerate(right_letters):
            if letter != summed[0]:
                shape[labels[1].index(letter)] = values.known.shape[axis]
        order = sorted((letter for letter in right_letters if letter != summed[0]), key=labels[1].index)
        axes = [right_letters.index(letter) for letter in order] + [right_letters.index(summed[0])]
        return collapsed(values.value.transpose(axes).reshape(shape), values.known.transpose(axes).reshape(shape))

    def demand(self, op: Operation, live: Liveness) -> None:
        labels = self.labels(op)
        assert labels is not None
        for letter in self._summed(labels):
            places = [(node, letters.index(letter)) for node, letters in labels[0] if letter in letters]
            if not all(is_static(shape_of(node)[axis]) for node, axis in places):
                continue
            needed = np.ones(shape_of(places[0][0])[places[0][1]], bool)
            for node, axis in places:
                value, known = live.facts[node].plain().along(axis, shape_of(node)[axis])
                zero = known & (value == 0)
                if zero.any() and all(live.facts.ranges[other].finite for other, _ in labels[0] if other is not node):
                    needed = needed & ~zero
            live.require(*places[0], needed, f"summed over by '{op.node.name}'")

    def macs(self, op: Operation, shape: Callable[[fx.Node], tuple[int, ...]]) -> int:
        labels = self.labels(op)
        if labels is None:
            return 0
        sizes: dict[str, int] = {}
        for node, letters in labels[0]:
            for letter, size in zip(letters, shape(node), strict=True):
                sizes[letter] = max(size, sizes.get(letter, 1))
        return int(np.prod(list(sizes.values())))

    def _summed(self, labels: Labels) -> list[str]:
        operands, result = labels
        return sorted({letter for _, letters in operands for letter in letters if letter not in result})

    def _zero(self, op: Operation, labels: Labels, facts: KnownConstants) -> Facts:
        """Where a whole row of the sum is zero on one side, so is the result."""
        rank = len(shape_of(op.node))
        known = np.zeros((1,) * rank, bool)
        for node, letters in labels[0]:
            if not all(facts.trusts(other) for other, _ in labels[0] if other is not node):
                continue
            given = facts[node].plain()
            zero = given.known & (given.value == 0)
            summed = tuple(axis for axis, letter in enumerate(letters) if letter not in labels[1])
            zero = zero.all(axis=summed, keepdims=True)
            order = sorted((a for a in range(zero.ndim) if a not in summed), key=lambda a: labels[1].index(letters[a]))
            shape = [1] * rank
            for axis in order:
                shape[labels[1].index(letters[axis])] = zero.shape[axis]
            known = known | zero.transpose([*order, *summed]).reshape(shape)
        return collapsed(np.zeros(known.shape), known)


@register
class Attention(Rule):
    """``scaled_dot_product_attention``: heads are independent, so a head may go as a whole; where a head's values are
    constant its result is that constant, because attention weights sum to one. They are all zero for a query whose keys
    are all masked: a mask that is not known leaves only zeros as they are.

    For example::

        before scaled_dot_product_attention(x 2x4x5x2, y 2x4x5x2, z 2x4x5x2) -> 2x4x5x2
        after  scaled_dot_product_attention(x 2x2x5x2, y 2x2x5x2, z 2x2x5x2) -> 2x2x5x2
    """

    operators = ("aten.scaled_dot_product_attention",)

    def reason(self, op: Operation) -> str:
        return "attention scores need every channel of a head"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        query, key, value, out = op["query"], op["key"], op["value"], op.node
        rank = len(shape_of(out))
        for axis in range(rank - 2):
            for node in (query, key, value):
                self._tie(axes, node, axis, out)
        axes.same((query, rank - 2), (out, rank - 2))
        axes.same((value, rank - 1), (out, rank - 1))
        axes.same((query, rank - 1), (key, rank - 1))
        axes.freeze((query, rank - 1), self.reason(op))
        if op.get("is_causal"):
            axes.freeze((query, rank - 2), "causal attention counts the queries before each one")
        for mask in optional(op.get("attn_mask")):
            for axis in range(1, len(shape_of(mask)) + 1):
                place = rank - axis
                size = shape_of(mask)[-axis]
                if axis > 1 and not is_unit(size):  # Keys stay whole.
                    axes.same((mask, len(shape_of(mask)) - axis), (out, place))

    def _tie(self, axes: AxesBuilder, node: fx.Node, axis: int, out: fx.Node) -> None:
        size, goal = shape_of(node)[axis], shape_of(out)[axis]
        if is_static(size) and is_static(goal) and size != goal and size > 1:
            times = goal // size  # Grouped queries: each key and value head serves `times` query heads.
            axes.gather((node, axis), (out, axis), np.arange(goal) // times, np.arange(goal))
        elif is_unit(size) and not is_unit(goal):
            axes.touch((node, axis))
        else:
            axes.same((node, axis), (out, axis))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        value = op["value"]
        given = facts[value].plain()
        rank = given.rank
        if given.nothing or given.known.shape[rank - 2] != 1:
            return unknown(rank)
        if not self._every_query_sees(op, facts):
            given = collapsed(given.value, given.known & (given.value == 0) & facts.ranges[op.node].finite)
        heads, goal = shape_of(value)[rank - 3] if rank > 2 else 1, shape_of(op.node)[rank - 3] if rank > 2 else 1
        if given.known.shape[max(0, rank - 3)] == 1 or heads == goal:
            return given
        if not is_static(heads) or not is_static(goal):
            return unknown(rank)
        times = goal // heads  # Grouped queries: one head of values for several of queries.
        return collapsed(given.value.repeat(times, rank - 3), given.known.repeat(times, rank - 3))

    def _every_query_sees(self, op: Operation, facts: KnownConstants) -> bool:
        """Returns if no query's keys are all masked, which would give zeros instead of the values' mean."""
        mask = op.get("attn_mask")
        if not facts.ranges[op.node].finite:
            return False  # Scores that may be NaN.
        if not isinstance(mask, fx.Node):
            return True
        if mask.meta["val"].dtype is torch.bool:
            shown = facts[mask].known & (facts[mask].value != 0)
            return bool(shown.any(-1).all())
        return has_finite_entries(mask, facts)

    def macs(self, op: Operation, shape: Callable[[fx.Node], tuple[int, ...]]) -> int:
        query, key, value = shape(op["query"]), shape(op["key"]), shape(op["value"])
        return int(np.prod(query[:-1])) * key[-2] * (query[-1] + value[-1])


def _matmul_labels(first: fx.Node, second: fx.Node) -> Labels:
    """Letters of a matrix product with broadcast batch axes."""
    a, b = len(shape_of(first)), len(shape_of(second))
    batch = "abcdefghijklmnopqrstuvw"[: max(a, b, 2) - 2]
    left = "z" if a == 1 else batch[len(batch) - (a - 2) :] + "xz"
    right = "z" if b == 1 else batch[len(batch) - (b - 2) :] + "zy"
    result = (batch if a > 2 or b > 2 else "") + ("x" if a > 1 else "") + ("y" if b > 1 else "")
    return [(first, left), (second, right)], result


def _einsum_labels(op: Operation) -> Labels | None:
    equation = str(op["equation"]).replace(" ", "")
    match = re.fullmatch(r"([a-zA-Z]+),([a-zA-Z]+)->([a-zA-Z]*)", equation)
    operands = list(op["tensors"])
    if match is None or len(operands) != 2:
        return None
    terms = match.groups()
    if any(len(set(term)) != len(term) for term in terms):
        return None
    return [(operands[0], terms[0]), (operands[1], terms[1])], terms[2]
