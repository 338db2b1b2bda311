"""GRU, LSTM and plain RNN over sequences: a unit whose candidate rows are zero stays at its initial zero, and may go.

In a GRU ``h' = (1 - z) n + z h`` with ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``; in an LSTM ``c' = f c + i g``,
``h' = o tanh(c')`` with ``g = tanh(W_ig x + b_ig + W_hg h + b_hg)``. Where the rows of n (of g) are zero and the state
starts at zero, the unit is zero forever. All layers and directions of one call share the width of the state, so a unit
goes when it is zero in every one of them. Constant input features fold into the input bias of the first layer.

With projections the state is ``h' = W_hr (o tanh(c'))``: there are units, and what they are projected to, which is zero where
the rows of W_hr are and the state starts at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..axes import AxesBuilder, Axis
from ..edit import Edit
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants, Liveness
from ..values import Operation, is_static, shape_of
from .base import Rule, register

__all__ = ["GATES", "Recurrent", "stored_tensor"]

Bools = NDArray[np.bool_]

GATES = {"gru": (3, 2), "lstm": (4, 2), "rnn_tanh": (1, 0), "rnn_relu": (1, 0)}
"""Row blocks of the weights, and which of them is the candidate."""


@register
class Recurrent(Rule):
    """The padded-batch forms (``.input``); packed sequences stay whole.

    For example::

        before gru(x 2x3x8, y 1x2x8, [weight_ih_l0 24x8, weight_hh_l0 24x8, bias_ih_l0 24, bias_hh_l0 24], True, 1,
                   0, False, False, True) -> 2x3x8, 1x2x8
        after  gru(x 2x3x4, y 1x2x4, [weight_ih_l0 12x4, weight_hh_l0 12x4, bias_ih_l0 12, bias_hh_l0 12], True, 1,
                   0, False, False, True) -> 2x3x4, 1x2x8
    """

    operators = ("aten.gru", "aten.lstm", "aten.rnn_tanh", "aten.rnn_relu")

    def reason(self, op: Operation) -> str:
        return "" if self._usable(op) else f"{op.name.removeprefix('aten.')} feeds its hidden state back into itself"

    def macs(self, op: Operation, shape: Callable[[fx.Node], tuple[int, ...]]) -> int:
        """Those of the matrices, in every step of every example."""
        if not self._usable(op):
            return 0
        matrices = [stored for cell in self._cells(op) for stored in cell if len(shape_of(stored)) == 2]
        return int(np.prod(shape(op["input"])[:2])) * sum(int(np.prod(shape(stored))) for stored in matrices)

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if not self._usable(op):
            return
        source, (gates, _) = op["input"], self._gates(op)
        units, narrow = shape_of(_states(op)[-1])[2], shape_of(_states(op)[0])[2]
        unit, gate = axes.hidden("unit", units), axes.hidden("gate", gates)
        state = axes.hidden("projected", narrow) if self._projects(op) else unit
        axes.freeze(gate, "", barrier=False)
        directions = 1 + bool(op["bidirectional"])
        for place, cell in enumerate(self._cells(op)):
            for stored in self._gated(op, cell):
                axes.product((stored, 0), (gate, unit), (gates, units))
                axes.producer(stored, 0)
            self._relate_states(op, axes, cell, state, unit)
            if place < directions:
                axes.same((cell[0], 1), (source, 2))
                axes.consumer(cell[0], 1)
            else:
                self._relate_both(axes, (cell[0], 1), state, directions, narrow)
        for place, value in (*enumerate(_states(op)), *enumerate(op.outputs[1:])):
            if value is not None:
                axes.freeze((value, 0), "", barrier=False)
                axes.freeze((value, 1), "", barrier=False)
                axes.same((value, 2), unit if place else state)
        self._relate_sequences(op, axes, state, directions, narrow)
        axes.mixes(state, unit)

    def _relate_states(
        self, op: Operation, axes: AxesBuilder, cell: Sequence[fx.Node], state: Axis, unit: Axis
    ) -> None:
        """The parameters of a cell that read the state before, and that project the one after."""
        axes.same((cell[1], 1), state)
        axes.consumer(cell[1], 1)
        if self._projects(op):
            axes.same((cell[-1], 0), state)
            axes.same((cell[-1], 1), unit)
            axes.producer(cell[-1], 0)
            axes.consumer(cell[-1], 1)

    def _relate_sequences(self, op: Operation, axes: AxesBuilder, state: Axis, directions: int, narrow: int) -> None:
        source, out = op["input"], op.outputs[0]
        # A step depends on those before it, and the states hold the whole batch.
        for sequence in [source, *([out] if out is not None else [])]:
            axes.freeze((sequence, 0), "a recurrent layer runs through every step", barrier=False)
            axes.freeze((sequence, 1), "a recurrent layer runs through every step", barrier=False)
        if out is not None:
            self._relate_both(axes, (out, 2), state, directions, narrow)
            axes.mixes((source, 2), (out, 2))

    def constants(self, op: Operation, facts: KnownConstants) -> Sequence[Facts]:
        if not self._usable(op):
            return [unknown(3) for _ in op.outputs]
        directions = 1 + bool(op["bidirectional"])
        dead = [self._dead(op, cell, facts) for cell in self._cells(op)]
        silent = [self._silent(op, cell, facts) for cell in self._cells(op)]
        found = [_zero_where(np.concatenate(silent[-directions:])), _zero_where(np.logical_and.reduce(silent))]
        return [*found, _zero_where(np.logical_and.reduce(dead))][: len(op.outputs)]

    def demand(self, op: Operation, live: Liveness) -> None:
        cells = self._cells(op)
        alive = ~np.logical_and.reduce([self._dead(op, cell, live.facts) for cell in cells])
        live.require(_states(op)[-1], 2, alive, f"a hidden unit of '{op.node.name}' that is not always zero")
        if self._projects(op):
            started = ~_zero_at_start(_states(op)[0], live.facts)
            speaks = started | ~np.logical_and.reduce([self._silent(op, cell, live.facts) for cell in cells])
            live.require(_states(op)[0], 2, speaks, f"a projection of '{op.node.name}' that is not always zero")
            self._keep_apart(op, live)
        source = op["input"]
        if is_static(shape_of(source)[2]):
            value, known = live.facts[source].plain().along(2, shape_of(source)[2])
            reads = self._reads(op) | (not live.facts.ranges[source].finite)
            needed = reads & (~known | ((value != 0) & (not self._folds(op))))
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
            weight, bias = stored_tensor(op, cell[0]), edit.parameter(cell[2])
            rows = torch.from_numpy(np.flatnonzero(edit.kept(cell[2], 0)))
            amount = (weight.double() @ torch.from_numpy(gone))[rows]
            edit.set_parameter(cell[2], (bias.double() + amount).to(bias.dtype))

    # Details ---------------------------------------------------------------------------------------------------

    def _gates(self, op: Operation) -> tuple[int, int]:
        return GATES[op.name.removeprefix("aten.")]

    def _cells(self, op: Operation) -> list[list[fx.Node]]:
        """The stored tensors of every layer and direction: input weight, state weight, biases and projection if any."""
        each = self._each(op)
        parameters: list[fx.Node] = list(op["params"])
        return [parameters[start : start + each] for start in range(0, len(parameters), each)]

    def _usable(self, op: Operation) -> bool:
        if "params" not in op.arguments or "has_biases" not in op.arguments or "batch_sizes" in op.arguments:
            return False
        count = op["num_layers"] * (1 + bool(op["bidirectional"])) * self._each(op)
        stored = all(node.op == "get_attr" and len(node.users) == 1 for node in op["params"])
        distinct = len(set(op["params"])) == count  # A tensor in two places would be folded into twice.
        return stored and distinct and len(op["params"]) == count and len(shape_of(op["input"])) == 3

    def _projects(self, op: Operation) -> bool:
        return len({shape_of(state)[2] for state in _states(op)}) > 1

    def _each(self, op: Operation) -> int:
        return (4 if op["has_biases"] else 2) + self._projects(op)

    def _gated(self, op: Operation, cell: list[fx.Node]) -> list[fx.Node]:
        """Of a cell, what has rows for every gate."""
        return cell[:-1] if self._projects(op) else cell

    def _keep_apart(self, op: Operation, live: Liveness) -> None:
        """Torch tells a projection by a width other than the units', so that they must not become equally many."""
        units, narrow = live.kept(_states(op)[-1], 2), live.kept(_states(op)[0], 2)
        if live.placing_carriers and units.sum() == narrow.sum() > 0:
            spare = ~units & (np.cumsum(~units) == 1)
            live.require(_states(op)[-1], 2, spare, f"'{op.node.name}' has more units than it projects them to")

    def _silent(self, op: Operation, cell: list[fx.Node], facts: KnownConstants) -> Bools:
        """What of the state is zero after every step."""
        if not self._projects(op):
            return self._dead(op, cell, facts)
        rows: Bools = (stored_tensor(op, cell[-1]) == 0).all(1).cpu().numpy()
        return rows & facts.ranges[op.node].finite

    def _relate_both(self, axes: AxesBuilder, axis: Any, unit: Any, directions: int, units: int) -> None:
        """An axis that holds the units of one direction, or of both one after another."""
        if directions == 1:
            axes.same(axis, unit)
        else:
            direction = axes.hidden(("direction", axis), directions)
            axes.freeze(direction, "", barrier=False)
            axes.product(axis, (direction, unit), (directions, units))

    def _dead(self, op: Operation, cell: list[fx.Node], facts: KnownConstants) -> Bools:
        """Units of one layer and direction that are zero at every step."""
        gates, candidate = self._gates(op)
        tensors = [stored_tensor(op, node) for node in self._gated(op, cell)]
        rows = [tensor.reshape(gates, -1, *tensor.shape[1:])[candidate] for tensor in tensors]
        silent = torch.stack([(part == 0).reshape(len(part), -1).all(1) for part in rows]).all(0).cpu().numpy()
        result: Bools = silent & facts.ranges[op.node].finite
        for state in _states(op)[1 if self._projects(op) else 0 :]:
            result = result & _zero_at_start(state, facts)
        return result

    def _reads(self, op: Operation) -> Bools:
        """Input features that any row of the first layer reads."""
        first = self._cells(op)[: 1 + bool(op["bidirectional"])]
        return np.asarray(
            torch.stack([(stored_tensor(op, cell[0]) != 0).any(0) for cell in first]).any(0).cpu().numpy()
        )

    def _folds(self, op: Operation) -> bool:
        return bool(op["has_biases"])


def _zero_where(known: Bools) -> Facts:
    """Facts of a tensor of three axes whose last one holds the units."""
    return collapsed(np.zeros((1, 1, known.size)), known.reshape(1, 1, -1))


def _states(op: Operation) -> list[fx.Node]:
    """The initial hidden state, and the cell state of an LSTM."""
    hx = op["hx"]
    return list(hx) if isinstance(hx, list | tuple) else [hx]


def _zero_at_start(state: fx.Node, facts: KnownConstants) -> Bools:
    value, known = facts[state].plain().along(2, shape_of(state)[2])
    return known & (value == 0)


def stored_tensor(op: Operation, node: fx.Node) -> torch.Tensor:
    """The tensor that a ``get_attr`` node reads."""
    value: Any = op.module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    tensor: torch.Tensor = value.detach()
    return tensor
