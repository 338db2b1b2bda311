"""One step of a GRU, LSTM or plain RNN, whose state the model carries itself: ``nn.GRUCell`` in a loop.

Input features go where no row reads them or they are zero, and constant ones fold into the input bias, if all steps see the
same. A unit goes where nobody reads its state, or where the state is zero at every step: its candidate's rows are zero, and
so is the state that comes in. All steps that share weights lose the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed
from ..liveness import KnownConstants, Liveness
from ..values import Operation, is_static, operator_name, shape_of
from .base import Rule, optional, register
from .recurrent import GATES, Recurrent, stored_tensor

__all__ = ["RecurrentCell", "recurrent_tensors"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@register
class RecurrentCell(Rule):
    """``gru_cell``, ``lstm_cell``, ``rnn_tanh_cell`` and ``rnn_relu_cell`` with stored weights.

    For example::

        before lstm_cell(x 2x8, [y 2x8, y 2x8], weight_ih 32x8, weight_hh 32x8, bias_ih 32, bias_hh 32) -> 2x8, 2x8
        after  lstm_cell(x 2x4, [y 2x4, y 2x4], weight_ih 16x4, weight_hh 16x4, bias_ih 16, bias_hh 16) -> 2x4, 2x4
    """

    operators = ("aten.gru_cell", "aten.lstm_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell")

    def reason(self, op: Operation) -> str:
        return "" if self._usable(op) else f"the weights of this {op.name.removeprefix('aten.')} are computed"

    def macs(self, op: Operation, shape: Callable[[fx.Node], tuple[int, ...]]) -> int:
        """Those of both matrices."""
        return shape(op["input"])[0] * sum(int(np.prod(shape(op[name]))) for name in ("w_ih", "w_hh"))

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if not self._usable(op):
            return
        source, gates, units = op["input"], self._gates(op)[0], shape_of(_states(op)[0])[1]
        unit, gate = (op["w_hh"], 1), axes.hidden("gate", gates)
        axes.freeze(gate, "", barrier=False)
        for stored in _parameters(op):
            axes.product((stored, 0), (gate, unit), (gates, units))
            axes.producer(stored, 0)
        for weight in (op["w_ih"], op["w_hh"]):
            axes.consumer(weight, 1)
        axes.same((source, 1), (op["w_ih"], 1))
        for state in [*_states(op), *(out for out in op.outputs if out is not None)]:
            axes.same((state, 0), (source, 0))
            axes.same((state, 1), unit)
        axes.mixes((source, 1), unit)
        axes.mixes(unit, unit)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts | Sequence[Facts]:
        if not self._usable(op):
            return super().constants(op, facts)
        silent = self._silent(op, facts)
        for state in (
            _states(op) if self._gates(op)[0] > 1 else ()
        ):  # A plain RNN passes its state on by the rows alone.
            silent = silent & _zeros(state, facts)
        found = collapsed(np.zeros((1, silent.size)), silent[None])
        return found if len(op.outputs) == 1 else [found for _ in op.outputs]

    def demand(self, op: Operation, live: Liveness) -> None:
        source, state = op["input"], _states(op)[0]
        kept = live.kept(op["w_hh"], 1)
        read = self._read(op, op["w_hh"], kept, live.facts.ranges[state].finite)
        live.require(state, 1, read & ~_zeros(state, live.facts), f"a state that '{op.node.name}' reads")
        value, known = _along_features(source, live.facts)
        read = self._read(op, op["w_ih"], kept, live.facts.ranges[source].finite)
        folds = self._folds(op, live.facts)
        live.require(source, 1, read & (~known | ((value != 0) & (not folds))), f"read by '{op.node.name}'")

    def rewrite(self, op: Operation, edit: Edit) -> None:
        if not self._usable(op) or not self._folds(op, edit.facts) or op.node is not next(iter(op["w_ih"].users)):
            return  # The first step has done it for all.
        value, known = _along_features(op["input"], edit.facts)
        gone = np.where(known & ~edit.kept(op["input"], 1), value, 0.0)
        if gone.any():
            weight, bias = stored_tensor(op, op["w_ih"]), edit.parameter(op["b_ih"])
            rows = torch.from_numpy(np.flatnonzero(edit.kept(op["b_ih"], 0)))
            amount = (weight.double() @ torch.from_numpy(gone).to(weight.device))[rows]
            edit.set_parameter(op["b_ih"], (bias.double() + amount).to(bias.dtype))

    # Details ---------------------------------------------------------------------------------------------------

    def _gates(self, op: Operation) -> tuple[int, int]:
        return GATES[op.name.removeprefix("aten.").removesuffix("_cell")]

    def _usable(self, op: Operation) -> bool:
        sized = is_static(shape_of(op["input"])[1]) and len(shape_of(op["input"])) == 2
        return sized and all(node.op == "get_attr" for node in _parameters(op))

    def _silent(self, op: Operation, facts: KnownConstants) -> Bools:
        """Units whose candidate is zero whatever comes in."""
        gates, candidate = self._gates(op)
        zero = np.ones(shape_of(op["w_hh"])[1], bool)
        for node in _parameters(op):
            rows = stored_tensor(op, node).reshape(gates, zero.size, -1)[candidate]
            zero &= (rows == 0).all(1).cpu().numpy()
        return zero & facts.ranges[op.node].finite

    def _read(self, op: Operation, weight: fx.Node, kept: Bools, finite: bool) -> Bools:
        """Which columns of a weight the rows of kept units read."""
        key = f"reaches {weight.name}"
        if key not in op.cache:
            tensor = stored_tensor(op, weight)
            op.cache[key] = (tensor != 0).reshape(self._gates(op)[0], kept.size, -1).any(0).cpu().numpy()
        reaches: Bools = op.cache[key]
        return np.asarray(reaches[kept].any(0) if finite else np.full(reaches.shape[1], kept.any()))

    def _folds(self, op: Operation, facts: KnownConstants | KnownConstants) -> bool:
        """Returns if constants may go into the input bias: all who read it see the same ones."""
        if not isinstance(op.get("b_ih"), fx.Node):
            return False
        readers = set(op["w_ih"].users)
        if len(readers) == 1 and set(op["b_ih"].users) == readers:
            return _distinct(op)
        key = ("cell folds", op["w_ih"], op["b_ih"])
        memo = facts.memo  # type: ignore[union-attr]
        if key not in memo:
            memo[key] = self._steps_agree(op, facts)
        return bool(memo[key])

    def _steps_agree(self, op: Operation, facts: KnownConstants) -> bool:
        readers = set(op["w_ih"].users)
        if set(op["b_ih"].users) != readers or any(operator_name(reader) != op.name for reader in readers):
            return False
        value, known = _along_features(op["input"], facts)
        for reader in readers:
            step = Operation(reader, op.module)
            if _parameters(step) != _parameters(op) or not _distinct(step):
                return False
            other, other_known = _along_features(step["input"], facts)
            if not (np.array_equal(known, other_known) and np.array_equal(value[known], other[known])):
                return False
        return True


def _parameters(op: Operation) -> list[fx.Node]:
    """Input weight, state weight, and the biases if there are any."""
    return [node for name in ("w_ih", "w_hh", "b_ih", "b_hh") for node in optional(op.get(name))]


def _distinct(op: Operation) -> bool:
    """No tensor stands in two places, so that a change of one place changes one."""
    operands = [*_parameters(op), *_states(op), op["input"]]
    stored = [node for node in operands if node.op == "get_attr"]
    return len(set(stored)) == len(stored)


def _states(op: Operation) -> list[fx.Node]:
    """The hidden state that comes in, and the cell state of an LSTM."""
    hx = op["hx"]
    return list(hx) if isinstance(hx, list | tuple) else [hx]


def _along_features(source: fx.Node, facts: KnownConstants) -> tuple[Floats, Bools]:
    return facts[source].plain().along(1, shape_of(source)[1])


def _zeros(state: fx.Node, facts: KnownConstants) -> Bools:
    value, known = facts[state].plain().along(1, shape_of(state)[1])
    return known & (value == 0)


def recurrent_tensors(op: Operation) -> tuple[fx.Node, ...]:
    """The matrices and biases of a recurrent layer or cell; none of other calls."""
    if op.name in Recurrent.operators:
        return tuple(op.get("params", ()))
    return tuple(_parameters(op)) if op.name in RecurrentCell.operators else ()
