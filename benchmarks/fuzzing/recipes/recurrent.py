"""Layers and cells with a state."""

from __future__ import annotations

import torch

from ..draft import Draft
from ..program import Ref
from .registry import recipe


@recipe("gru lstm rnn_tanh rnn_relu", weight=4)
def layers(draft: Draft, operator: str) -> list[Ref]:
    x = draft.of_rank(3)
    first = draft.chance(60)
    size = draft.shape(x)[2]
    batch = draft.shape(x)[0 if first else 1]
    hidden, count, ways = draft.pick((4, 3, 2, 5)), draft.pick((1, 1, 2)), draft.pick((1, 1, 2))
    gates = {"gru": 3, "lstm": 4}.get(operator, 1)
    biases = not draft.chance(25)
    narrow = draft.integer(1, hidden - 1) if operator == "lstm" and draft.chance(30) else hidden
    weights: list[Ref] = []
    for layer in range(count):
        features = size if layer == 0 else narrow * ways
        for _ in range(ways):
            weights += [draft.weight(gates * hidden, features, fan_in=features)]
            weights += [draft.weight(gates * hidden, narrow, fan_in=narrow)]
            if biases:
                weights += [draft.store(gates * hidden, scale=0.5), draft.store(gates * hidden, scale=0.5)]
            if narrow != hidden:
                weights += [draft.weight(narrow, hidden, fan_in=hidden)]

    def state(width: int) -> Ref:
        shape = (count * ways, batch, width)
        if draft.chance(20):
            return draft.store(*shape)
        return draft.call("zeros.default", shape, dtype=torch.float64)

    start = (state(narrow), state(hidden)) if operator == "lstm" else state(hidden)
    made = draft.call(f"{operator}.input", x, start, tuple(weights), biases, count, 0.0, False, ways == 2, first)
    sequence, last = draft.items(made)[:2]
    return [sequence, last] if draft.chance(20) else [sequence]


@recipe("gru_cell lstm_cell rnn_tanh_cell rnn_relu_cell", weight=3)
def cells(draft: Draft, operator: str) -> list[Ref]:
    x = draft.of_rank(2)
    x = draft.fed(x, 1)
    batch, size = draft.shape(x)
    hidden = draft.pick((4, 3, 2))
    gates = {"gru_cell": 3, "lstm_cell": 4}.get(operator, 1)
    matrices = (draft.weight(gates * hidden, size, fan_in=size), draft.weight(gates * hidden, hidden, fan_in=hidden))
    biases = (
        () if draft.chance(25) else (draft.store(gates * hidden, scale=0.5), draft.store(gates * hidden, scale=0.5))
    )

    def state() -> Ref:
        if draft.chance(40):
            return draft.call("zeros.default", (batch, hidden), dtype=torch.float64)
        fits = [ref for ref in draft.pool if draft.shape(ref) == (batch, hidden)]
        if fits and draft.chance(50):
            chosen: Ref = draft.pick(fits)
            return chosen
        return draft.store(batch, hidden)

    carried = [state(), state()] if operator == "lstm_cell" else [state()]
    for _ in range(draft.pick((1, 2, 3))):  # Steps of a loop, which share their weights.
        if operator == "lstm_cell":
            carried = draft.items(draft.call("lstm_cell.default", x, tuple(carried), *matrices, *biases))
        else:
            carried = [draft.call(f"{operator}.default", x, *carried, *matrices, *biases)]
        x = draft.call("cos.default", x) if draft.chance(50) else x
    return carried
