"""GRU and LSTM: barriers. The state feeds back into itself, so a hidden unit is not a channel one may drop locally."""

from __future__ import annotations

from ..values import Operation
from .base import Rule, register

__all__ = ["Recurrent"]


@register
class Recurrent(Rule):
    """Input, hidden and output axes stay whole."""

    operators = ("aten.gru", "aten.lstm", "aten.rnn_tanh", "aten.rnn_relu", "aten.gru_cell", "aten.lstm_cell")

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} feeds its hidden state back into itself"
