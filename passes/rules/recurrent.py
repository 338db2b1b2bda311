"""GRU, LSTM and plain RNN: a hidden unit whose candidate rows are zero stays at its initial zero, and may go.

In a GRU ``h' = (1 - z) n + z h`` with ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``; in an LSTM ``c' = f c + i g``,
``h' = o tanh(c')`` with ``g = tanh(W_ig x + b_ig + W_hg h + b_hg)``. Where the rows of n (of g) are zero and the state
starts at zero, the unit is zero for ever. All layers and directions of one call share the width of the state, so a unit
goes when it is zero in every one of them. Constant input features fold into the input bias of the first layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..facts import Facts, collapsed, unknown
from ..values import Operation, is_static, shape_of
from .base import FactTable, Rule, register

if TYPE_CHECKING:
    from ..axes import AxesBuilder
    from ..propagation import Liveness
    from ..rewriting import Edit

__all__ = ["Recurrent", "RecurrentCell"]

Bools = NDArray[np.bool_]

_GATES = {"gru": (3, 2), "lstm": (4, 2), "rnn_tanh": (1, 0), "rnn_relu": (1, 0)}
"""Row blocks of the weights, and which of them is the candidate."""


@register
class Recurrent(Rule):
    """The padded-batch forms (``.input``); packed sequences stay whole."""

    operators = ("aten.gru", "aten.lstm", "aten.rnn_tanh", "aten.rnn_relu")

    def reason(self, op: Operation) -> str:
        return "" if self._usable(op) else f"{op.name.removeprefix('aten.')} feeds its hidden state back into itself"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if not self._usable(op):
            return
        source, units, (gates, _) = op["input"], shape_of(_states(op)[0])[2], self._gates(op)
        unit, gate = axes.hidden("unit", units), axes.hidden("gate", gates)
        axes.freeze(gate, "", barrier=False)
        directions = 1 + bool(op["bidirectional"])
        for place, cell in enumerate(self._cells(op)):
            for position, stored in enumerate(cell):
                axes.product((stored, 0), (gate, unit), (gates, units))
                axes.producer(stored, 0)
                if position == 1:
                    axes.same((stored, 1), unit)
                    axes.consumer(stored, 1)
            if place < directions:
                axes.same((cell[0], 1), (source, 2))
                axes.consumer(cell[0], 1)
            else:
                self._relate_both(axes, (cell[0], 1), unit, directions, units)
        for state in [*_states(op), *(out for out in op.outputs[1:] if out is not None)]:
            axes.touch((state, 0), (state, 1))
            axes.freeze((state, 0), "", barrier=False)
            axes.freeze((state, 1), "", barrier=False)
            axes.same((state, 2), unit)
        out = op.outputs[0]
        # A step depends on those before it, and the states hold the whole batch.
        for sequence in [source, *([out] if out is not None else [])]:
            axes.freeze((sequence, 0), "a recurrent layer runs through every step", barrier=False)
            axes.freeze((sequence, 1), "a recurrent layer runs through every step", barrier=False)
        if out is not None:
            self._relate_both(axes, (out, 2), unit, directions, units)
            axes.mixes((source, 2), (out, 2))
        axes.mixes(unit, unit)

    def constants(self, op: Operation, facts: FactTable) -> Sequence[Facts]:
        if not self._usable(op):
            return [unknown(3) for _ in op.outputs]
        directions = 1 + bool(op["bidirectional"])
        dead = [self._dead(op, cell, facts) for cell in self._cells(op)]
        always = np.logical_and.reduce(dead)
        return [_zero_where(np.concatenate(dead[-directions:])), *(_zero_where(always) for _ in op.outputs[1:])]

    def demand(self, op: Operation, live: Liveness) -> None:
        cells = self._cells(op)
        alive = ~np.logical_and.reduce([self._dead(op, cell, live.facts) for cell in cells])
        live.require(_states(op)[0], 2, alive, f"a hidden unit of '{op.node.name}' that is not always zero")
        source = op["input"]
        if is_static(shape_of(source)[2]):
            value, known = live.facts[source].plain().along(2, shape_of(source)[2])
            needed = self._reads(op) & (~known | ((value != 0) & (not self._folds(op))))
            live.require(source, 2, needed, f"read by '{op.node.name}'")

    def rewrite(self, op: Operation, edit: Edit) -> None:
        if not self._usable(op) or not self._folds(op):
            return
        source = op["input"]
        kept = edit.kept(source, 2)
        value, known = edit.facts[source].plain().along(2, len(kept))
        gone = np.where(known & ~kept, value, 0.0)
        if not gone.any():
            return
        for cell in self._cells(op)[: 1 + bool(op["bidirectional"])]:
            weight, bias = _stored(op, cell[0]), edit.parameter(cell[2])
            rows = torch.from_numpy(np.flatnonzero(edit.kept(cell[2], 0)))
            amount = (weight.double() @ torch.from_numpy(gone))[rows]
            edit.set_parameter(cell[2], (bias.double() + amount).to(bias.dtype))

    # Details ---------------------------------------------------------------------------------------------------

    def _gates(self, op: Operation) -> tuple[int, int]:
        return _GATES[op.name.removeprefix("aten.")]

    def _cells(self, op: Operation) -> list[list[fx.Node]]:
        """The stored tensors of every layer and direction: input weight, state weight, then the biases if any."""
        each = 4 if op["has_biases"] else 2
        parameters: list[fx.Node] = list(op["params"])
        return [parameters[start : start + each] for start in range(0, len(parameters), each)]

    def _usable(self, op: Operation) -> bool:
        if "params" not in op.arguments or "has_biases" not in op.arguments or "batch_sizes" in op.arguments:
            return False
        each = 4 if op["has_biases"] else 2
        count = op["num_layers"] * (1 + bool(op["bidirectional"])) * each
        stored = all(node.op == "get_attr" and len(node.users) == 1 for node in op["params"])
        distinct = len(set(op["params"])) == count  # A tensor in two places would be folded into twice.
        return stored and distinct and len(op["params"]) == count and len(shape_of(op["input"])) == 3

    def _relate_both(self, axes: AxesBuilder, axis: Any, unit: Any, directions: int, units: int) -> None:
        """An axis that holds the units of one direction, or of both one after another."""
        if directions == 1:
            axes.same(axis, unit)
        else:
            direction = axes.hidden(("direction", axis), directions)
            axes.freeze(direction, "", barrier=False)
            axes.product(axis, (direction, unit), (directions, units))

    def _dead(self, op: Operation, cell: list[fx.Node], facts: FactTable) -> Bools:
        """Units of one layer and direction that are zero at every step."""
        gates, candidate = self._gates(op)
        rows = [_stored(op, node).reshape(gates, -1, *_stored(op, node).shape[1:])[candidate] for node in cell]
        silent = torch.stack([(part == 0).reshape(len(part), -1).all(1) for part in rows]).all(0).cpu().numpy()
        result: Bools = silent
        for state in _states(op):
            value, known = facts[state].plain().along(2, silent.size)
            result = result & known & (value == 0)
        return result

    def _reads(self, op: Operation) -> Bools:
        """Input features that any row of the first layer reads."""
        first = self._cells(op)[: 1 + bool(op["bidirectional"])]
        return np.asarray(torch.stack([(_stored(op, cell[0]) != 0).any(0) for cell in first]).any(0).cpu().numpy())

    def _folds(self, op: Operation) -> bool:
        return bool(op["has_biases"])


def _zero_where(known: Bools) -> Facts:
    """Facts of a tensor of three axes whose last one holds the units."""
    return collapsed(np.zeros((1, 1, known.size)), known.reshape(1, 1, -1))


def _states(op: Operation) -> list[fx.Node]:
    """The initial hidden state, and the cell state of an LSTM."""
    hx = op["hx"]
    return list(hx) if isinstance(hx, list | tuple) else [hx]


def _stored(op: Operation, node: fx.Node) -> torch.Tensor:
    value: Any = op.module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    tensor: torch.Tensor = value.detach()
    return tensor


@register
class RecurrentCell(Rule):
    """One step of a recurrent cell whose state the model carries itself: a barrier."""

    operators = ("aten.gru_cell", "aten.lstm_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell")

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} feeds its hidden state back through the model"
